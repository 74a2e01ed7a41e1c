"""A policy tree of three levels over users with the columns of the Hillstrom mailing, and what it says, in NumPy."""

from typing import Any

import numpy as np


def rule(name: str, variant: str, condition: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "condition": condition, "variant": variant}


SEGMENT = {"key": "spenders", "name": "Spenders", "kind": "tier", "condition": {"history": {"$gte": 200}}}
POLICY: dict[str, Any] = {
    "key": "mail",
    "name": "Mail 邮件",
    "variants": [
        {"key": "mens", "tactic": {"copy": "男装"}},
        {"key": "none"},
        {"key": "womens", "tactic": {"copy": "女装"}, "costs": {"per_user": "0.5"}},
    ],
    "control": "none",
    "rules": [
        rule("recent-web", "mens", {"history": {"$gte": 200}, "recency": {"$lte": 6}, "channel": "Web"}),
        rule("recent", "womens", {"history": {"$gte": 200}, "recency": {"$lte": 6}}),
        rule("old-men", "mens", {"$and": [{"history": {"$gte": 200}}, {"mens": 1}, {"womens": {"$ne": 1}}]}),
        {"name": "spenders", "segment": "spenders", "variant": "womens"},
        rule("new-rural", "none", {"newbie": 1, "zip_code": {"$in": ["Rural", "郊区"]}}),
        rule("new-phone", "mens", {"newbie": 1, "channel": {"$nin": ["Web", "Multichannel"]}}),
        rule("new", "womens", {"newbie": 1}),
    ],
    "otherwise": "none",
    "holdback": {"share": 0.0},
    "metrics": [{"key": "revenue"}],
    "plan": {"planned_users": 64_000},
}


def users(count: int = 64_000, seed: int = 3) -> dict[str, np.ndarray]:
    """Columns: id and attributes."""
    r = np.random.default_rng(seed)
    return {
        "id": np.array([f"user-{i}" if i % 3 else f"用户{i}" for i in range(count)]),
        "recency": r.integers(1, 13, count),
        "history": np.round(r.lognormal(5, 1, count), 2),
        "mens": r.integers(0, 2, count),
        "womens": r.integers(0, 2, count),
        "zip_code": r.choice(["Urban", "Surburban", "Rural", "郊区"], count),
        "newbie": r.integers(0, 2, count),
        "channel": r.choice(["Phone", "Web", "Multichannel"], count),
    }


def rows(columns: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """The attributes of each user, without his id."""
    names = [name for name in columns if name != "id"]
    return [dict(zip(names, row, strict=True)) for row in zip(*(columns[name].tolist() for name in names), strict=True)]


def says(u: dict[str, np.ndarray]) -> tuple[list[str], list[str]]:
    """The rule that fits each user, and the variant it gives."""
    rich, recent, web = u["history"] >= 200, u["recency"] <= 6, u["channel"] == "Web"
    new, rural = u["newbie"] == 1, np.isin(u["zip_code"], ["Rural", "郊区"])
    leaves = [
        (rich & recent & web, "recent-web", "mens"),
        (rich & recent & ~web, "recent", "womens"),
        (rich & ~recent & (u["mens"] == 1) & (u["womens"] == 0), "old-men", "mens"),
        (rich & ~recent, "spenders", "womens"),
        (~rich & new & rural, "new-rural", "none"),
        (~rich & new & ~rural & (u["channel"] == "Phone"), "new-phone", "mens"),
        (~rich & new & ~rural, "new", "womens"),
    ]
    conditions = [leaf for leaf, _, _ in leaves]
    rules = np.select(conditions, [rule for _, rule, _ in leaves], "otherwise")
    variants = np.select(conditions, [variant for _, _, variant in leaves], "none")
    return rules.tolist(), variants.tolist()
