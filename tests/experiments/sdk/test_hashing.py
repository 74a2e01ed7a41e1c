"""The hash against published vectors, an independent JavaScript implementation, and laws."""

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from growthbook.core import gbhash
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from experiments.bulk import buckets
from experiments.sdk.hashing import BUCKETS, bucket, code_units, fnv1a32

CASES = Path(__file__).parents[2] / "cases"
HASHES = json.loads((CASES / "hash.json").read_text("utf-8"))
VECTORS = HASHES["growthbook"] + HASHES["own"] + HASHES["few_digits"]

# All characters, surrogates included: ids come from outside.
any_text = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: ascii(case["id"])[:20])
def test_bucket_equals_the_vector(case):
    assert bucket(case["seed"], case["id"]) == case["bucket"]


def test_buckets_in_bulk_equal_the_vectors():
    for seed in {case["seed"] for case in VECTORS}:
        cases = [case for case in VECTORS if case["seed"] == seed]
        assert buckets(seed, [case["id"] for case in cases]).tolist() == [case["bucket"] for case in cases]


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_vectors_equal_the_output_of_their_javascript():
    printed = subprocess.run(["node", CASES / "hash.js"], capture_output=True, check=True).stdout
    assert json.loads(printed) == HASHES


def test_fnv1a32_equals_the_reference_values_of_its_authors():
    # http://www.isthe.com/chongo/src/fnv/test_fnv.c: the 32-bit FNV-1a of "", "a", "foobar"
    assert [fnv1a32(text) for text in (b"", b"a", b"foobar")] == [0x811C9DC5, 0xE40C292C, 0xBF9CF968]


@given(any_text, any_text)
def test_bucket_equals_the_growthbook_sdk(seed, user_id):
    assert bucket(seed, user_id) / BUCKETS == gbhash(seed, user_id, 2)


@given(any_text, any_text)
def test_hashing_after_the_seed_equals_hashing_the_whole(seed, user_id):
    state = fnv1a32(code_units(seed))
    assert fnv1a32(code_units(user_id), state) == fnv1a32(code_units(seed + user_id))


def test_sequential_ids_are_uniform():
    ids = [f"user-{i}" for i in range(200_000)]
    for seed in ("spring-sale:1", "用户分层:2"):
        counts = np.bincount(buckets(seed, ids), minlength=BUCKETS)
        assert 0.001 < stats.chisquare(counts).pvalue < 0.999


def test_two_salts_are_independent():
    ids = [f"user-{i}" for i in range(200_000)]
    for first, second in (("copy:1", "copy:2"), ("email", "push"), ("a", "b")):
        table = np.zeros((20, 20))
        np.add.at(table, (buckets(first, ids) // 500, buckets(second, ids) // 500), 1)
        assert stats.chi2_contingency(table).pvalue > 0.001
