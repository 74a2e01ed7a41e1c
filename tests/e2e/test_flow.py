"""What people come for, from end to end, at a real browser: a tactic is tried, read, decided and rolled out."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from experiments import access, registry
from experiments.access import Role, Scope
from experiments.documents import Kind
from experiments.settings import Settings
from experiments.store import Store
from tests.e2e.reader import NARROW, log_in, overflow, reading
from tests.e2e.shop import Shop
from tests.e2e.site import serving
from tests.web import made
from tests.web.conftest import Clock
from web import create_app

APPROVER, VIEWER, OTHER = "approver", "viewer", "editor"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """An empty store with people of every role, and a key for the app."""
    store = Store.open(Settings.in_folder(tmp_path_factory.mktemp("store")), migrate=True)
    with store.write() as session:
        access.create_account(session, made.LOGIN, made.PASSWORD, now=made.NOW)
        for login in (APPROVER, VIEWER, OTHER):
            access.create_account(session, login, made.PASSWORD, role=Role(login), now=made.NOW)
        key = access.create_key(session, "app", [Scope.ingest, Scope.assign], now=made.NOW)
    clock = Clock(made.NOW)
    with serving(create_app(store=store, clock=clock)) as address:
        yield Shop(store, clock, address, key)
    store.close()


@pytest.fixture(scope="module")
def server(site: Shop) -> str:
    return site.address


# What a Chinese reader finds where an English one finds the words on the left.
CHINESE = {
    "New experiment": "新建实验",
    "Copy test": "文案测试",
    "Audience →": "人群 →",
    "Variants →": "方案 →",
    "Metrics →": "指标 →",
    "Plan →": "计划 →",
    "Check and start →": "检查并启动 →",
    "Save and start now": "保存并立即启动",
    "The experiment is running.": "实验已开始运行。",
    "Update the numbers": "更新数据",
    "Roll out New text to everyone.": "建议对所有用户上线“新文案”。",
    "Stop": "停止",
    "Record the decision": "记录决策",
    "The decision is recorded.": "决策已记录。",
    "Draft the policy": "生成策略草稿",
    "The policy is a draft: nobody gets it yet.": "策略还是草稿，没有任何用户受影响。",
    "Start": "启动",
    "Realised": "实际",
}


def button(page: Page, name: str) -> Locator:
    """A button or link of the page's own."""
    main = page.locator("main")
    return main.get_by_role("button", name=name, exact=True).or_(main.get_by_role("link", name=name, exact=True))


def press(page: Page, what: Locator | str) -> None:
    """Press a button or key, and wait for the page that comes then."""
    with page.expect_navigation():
        page.keyboard.press(what) if isinstance(what, str) else what.click()
    assert overflow(page) == 0


SKIP = "nav, select, details, .hint, small"
# The words that stand on a page, but for menus, what lists offer, and what is folded or small print.
READ = """skipped => {
    const found = [], walk = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT)
    while (walk.nextNode()) {
        const parent = walk.currentNode.parentElement
        if (parent.checkVisibility() && !parent.closest(skipped)) found.push(walk.currentNode.textContent.trim())
    }
    return found
}"""


@dataclass
class Newcomer:
    """Somebody who reads what is new on a page, then acts: how long that takes by the keystroke-level model.

    Seconds of Card, Moran & Newell (1980): a key or click 0.28 (an average typist without skill), to point 1.1, to make
    up one's mind 1.35; half a second for every page to come. 250 words are read a minute, of Chinese 375 characters; a
    Chinese character takes three keys.
    """

    page: Page
    seconds: float = 0.0
    known: set[str] = field(default_factory=set)

    def read(self) -> None:
        said = set(self.page.evaluate(READ, SKIP))
        text = " ".join(said - self.known)
        self.known |= said
        chinese = len(re.findall("[\u4e00-\u9fff]", text))
        self.seconds += chinese * 60 / 375 + len(re.findall(r"[A-Za-z0-9.,%-]+", text)) * 60 / 250

    def write(self, where: str, text: str) -> None:
        self.page.fill(where, text)
        keys = sum(3 if ord(letter) > 0x2E80 else 1 for letter in text)
        # Pointed at, and what stood there marked.
        self.seconds += 1.35 + 1.1 + 2 * 0.28 + keys * 0.28

    def go(self, what: Locator) -> None:
        self.read()
        self.seconds += 1.35 + 1.1 + 0.28 + 0.5
        press(self.page, what)


@pytest.mark.parametrize(
    ("page", "texts"),
    [
        pytest.param({}, ("Autumn push", "Boots are back in all sizes."), id="en"),
        pytest.param({"locale": "zh-CN"}, ("秋季推送", "热门短靴到货，尺码齐全！"), id="zh"),
    ],
    indirect=["page"],
)
def test_a_newcomer_starts_a_copy_test_within_three_minutes(page: Page, site: Shop, texts: tuple[str, str]) -> None:
    page.goto("/login")
    site.past(2_000)
    person = Newcomer(page)
    person.write("#login", made.LOGIN)
    person.write("#password", made.PASSWORD)
    person.go(page.locator("main button.primary"))
    person.go(page.locator("main a.primary").first)
    person.go(page.locator("button[value=copy_test]"))
    name, text = texts
    onward = page.locator("main .actions button.primary")
    person.write("#name", name)
    person.go(onward)
    person.go(onward)
    person.write("#v1_copy", text)
    person.go(onward)
    person.go(onward)
    person.go(onward)
    person.go(page.locator("button[value=start]"))
    assert person.seconds < 180


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param({}, {}, id="en-desktop"),
        pytest.param({"viewport": NARROW, "locale": "zh-CN", "has_touch": True}, CHINESE, id="zh-phone"),
    ],
    indirect=["page"],
)
def test_a_tactic_is_tried_read_decided_and_rolled_out(page: Page, site: Shop, words: dict[str, str]) -> None:
    def follow(name: str) -> None:
        press(page, button(page, words.get(name, name)))

    def reads(text: str) -> None:
        expect(page.locator("main")).to_contain_text(words.get(text, text))

    log_in(page)
    follow("New experiment")
    press(page, page.get_by_role("button", name=words.get("Copy test", "Copy test")).first)
    follow("Audience →")
    follow("Variants →")
    follow("Metrics →")
    # With so few users nothing could be said of complaints.
    page.uncheck("[name=guardrails][value=complaint_rate]")
    follow("Plan →")
    page.fill("#baseline", "10")
    page.fill("#lift", "40")
    follow("Check and start →")
    follow("Save and start now")
    reads("The experiment is running.")
    key = page.url.rsplit("/", 1)[1]

    site.live(key)
    follow("Update the numbers")
    reads("Roll out New text to everyone.")
    follow("Stop")
    follow("Record the decision")
    page.fill("#reason", "点击翻倍, twice the clicks")
    follow("Record the decision")
    reads("The decision is recorded.")

    follow("Draft the policy")
    policy = page.url.rsplit("/", 1)[1]
    reads("The policy is a draft: nobody gets it yet.")
    asked = {"user": "somebody", "experiments": [policy]}
    assert site.post("/v1/assignments", asked)["assignments"][policy]["variant"] is None
    follow("Start")
    given = site.post("/v1/assignments", asked)["assignments"][policy]
    assert given["tactic"]["copy"] == site.new_text(key)
    site.live(policy)
    follow("Update the numbers")
    reads("Realised")


# What has the focus but does not show it, if so, and whether that is what was looked for.
FOCUS = """target => {
    const one = document.activeElement, box = one.getBoundingClientRect(), style = getComputedStyle(one)
    const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0
    const seen = box.width > 0 && box.bottom > 0 && box.top < innerHeight
    return [one !== document.body && ring && seen ? "" : one.outerHTML.slice(0, 200), one === target]
}"""


def tab_to(page: Page, target: Locator) -> None:
    """Press Tab until something has the focus; all on the way must show that they have it."""
    element = target.element_handle()
    for _ in range(60):
        page.keyboard.press("Tab")
        hidden, arrived = element.evaluate(FOCUS)
        assert hidden == ""
        if arrived:
            return
    raise AssertionError(f"Tab does not lead to {target}")


def test_the_keyboard_alone_leads_to_a_running_experiment(page: Page, site: Shop) -> None:
    keys = page.keyboard
    page.goto("/login")
    expect(page.locator("#login")).to_be_focused()
    keys.type(made.LOGIN)
    keys.press("Tab")
    keys.type(made.PASSWORD)
    press(page, "Enter")
    tab_to(page, button(page, "New experiment"))
    press(page, "Enter")
    tab_to(page, page.get_by_role("button", name="Win-back"))
    press(page, "Space")
    tab_to(page, page.locator("#name"))
    keys.press("ControlOrMeta+a")
    keys.type("By keyboard")
    press(page, "Enter")
    tab_to(page, page.locator("[name=who][value=segments]"))
    keys.press("ArrowUp")
    expect(page.locator("[name=who][value=everyone]")).to_be_checked()
    press(page, "Enter")
    tab_to(page, page.locator("#v1_copy"))
    keys.press("ControlOrMeta+a")
    keys.type("Come back!")
    tab_to(page, button(page, "Metrics →"))
    press(page, "Space")
    tab_to(page, page.locator("#primary"))
    keys.type("Click")
    tab_to(page, button(page, "Plan →"))
    press(page, "Enter")
    tab_to(page, page.locator("#baseline"))
    keys.type("5")
    press(page, "Enter")
    tab_to(page, button(page, "Save and start now"))
    press(page, "Enter")
    expect(page.get_by_role("status")).to_have_text("The experiment is running.")
    with site.store.read() as session:
        (found,) = (each for each in registry.all_of(session, Kind.experiment) if each.name == "By keyboard")
    assert found.strata == []
    assert found.variants[1].tactic.copy_ == "Come back!"
    assert found.metrics[0].key == "click_rate"


# Of each step: what is typed and right, what is typed and wrong, and what would be right.
MISTAKES = {
    "goal": ({"hypothesis": "Kept"}, {"name": ""}, "A name"),
    "audience": ({"seg_attribute": "city", "seg_value": "上海"}, {"coverage": "120"}, "100"),
    "variants": ({"v0_copy": "Kept", "v1_offer": "Kept too"}, {"v1_cost": "much"}, "1"),
    "metrics": ({"worth_margin": "30"}, {"worth_users": "many"}, "1000"),
    "plan": ({"lift": "12", "baseline": "7"}, {"planned": "1.5"}, "5000"),
    "check": ({"start_at": "2026-12-24T09:00"}, {"stop_at": "2026-12-24T08:00"}, "2026-12-30T09:00"),
}


def test_a_mistake_at_any_step_keeps_all_input_and_the_summary_leads_to_it(page: Page) -> None:
    log_in(page)
    page.goto("/experiments/new")
    press(page, page.locator("button[value=copy_test]"))
    for step, (right, wrong, better) in MISTAKES.items():
        page.evaluate("document.querySelectorAll('main details').forEach(e => e.open = true)")
        for name, text in (right | wrong).items():
            page.fill(f"#{name}", text)
        press(page, page.locator("main .actions button").last)
        summary = page.locator(".notice.problem")
        expect(summary).to_be_focused()
        ((name, _),) = wrong.items()
        summary.get_by_role("link").click()
        expect(page.locator(f"#{name}")).to_be_focused()
        expect(page.locator(f"#{name}")).to_have_attribute("aria-invalid", "true")
        assert page.locator(f"#{name}").evaluate(FOCUS) == ["", True]
        assert {name: page.input_value(f"#{name}") for name in right | wrong} == right | wrong
        page.fill(f"#{name}", better)
        press(page, page.locator("main .actions button", has_text="Save as a draft" if step == "check" else "→"))
    expect(page.get_by_role("status")).to_have_text("The draft is saved.")


def change(page: Page, login: str, **fields: str) -> None:
    """Open the draft as somebody, and change fields of the first step."""
    log_in(page, login)
    page.goto(f"/experiments/{made.KEY}")
    press(page, button(page, "Change"))
    for name, text in fields.items():
        page.fill(f"#{name}", text)


def test_of_two_editors_the_second_is_told_and_loses_nothing(browser: Browser, site: Shop) -> None:
    # Unfinished forms are dropped a month after they were touched, by the clock of the disk.
    site.clock.now = made.NOW
    made.documents(site.store, start=False)
    with reading(browser, site.address) as first, reading(browser, site.address, refused=409) as second:
        change(second, made.LOGIN, name="Mine")
        change(first, OTHER, name="Theirs", hypothesis="Of the other")
        for page in (first, second):
            press(page, button(page, "Audience →"))
            press(page, page.get_by_role("button", name="Check and start"))
        press(first, button(first, "Save as a draft"))
        expect(first.get_by_role("status")).to_have_text("The draft is saved.")
        press(second, button(second, "Save as a draft"))
        told = second.get_by_role("alert").first
        expect(told).to_contain_text("Nothing you typed is lost.")
        expect(told).to_contain_text(OTHER)
        expect(told).to_contain_text("yours “Mine”, theirs “Theirs”")
        press(second, button(second, "Save as a draft"))
        expect(second.get_by_role("heading", level=1)).to_have_text("Mine")
        expect(second.locator("main")).to_contain_text("Of the other")


def test_a_viewer_is_offered_nothing_to_press_and_told_why(browser: Browser, site: Shop) -> None:
    with reading(browser, site.address, refused=403) as page:
        log_in(page, VIEWER)
        for path in ("/", "/policies", "/tactics", "/programme", "/audit"):
            page.goto(path)
            assert page.locator("main form[method=post]").count() == 0
        for tab in ("", "/segments", "/time", "/uplift", "/health", "/plan", "/decision", "/qa"):
            page.goto(f"/experiments/{made.KEY}{tab}")
            assert page.locator("main form[method=post]").count() == 0, tab
        assert page.request.get("/experiments/new").status == 403
        page.goto("/experiments/new")
        expect(page.locator("main")).to_contain_text("This takes the role “Editor”.")
        sent = {"csrf_token": page.locator("[name=csrf_token]").first.input_value()}
        refused = page.request.post(f"/experiments/{made.KEY}/status", form=sent | {"status": "running"})
        assert refused.status == 403
        assert "This takes the role “Approver”." in refused.text()
