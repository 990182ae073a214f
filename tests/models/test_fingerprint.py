"""The fingerprint's sums against their definition: sum of the bits, and of bits times (position % 65521), modulo 2^64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from markovlm.config.model import Loading
from markovlm.models import fingerprint
from markovlm.models.fingerprint import _checksum, _total, base_fingerprint
from markovlm.models.load import load_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64, torch.uint8])
@pytest.mark.parametrize("n", [0, 1, 65521, 3 * 65521 + 5])
def test_sums_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch, n: int, dtype: torch.dtype) -> None:
    monkeypatch.setattr(fingerprint, "_CHUNK", 2 * 65521)
    values = (torch.randn(n, generator=torch.Generator().manual_seed(0)) * 100).to(dtype)
    integers = {1: np.uint8, 2: np.int16, 4: np.int32, 8: np.int64}[values.element_size()]
    bits = values.view({1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]).numpy()
    assert bits.dtype == integers
    plain = int(sum(map(int, bits))) % 2**64
    weighted = sum(int(bit) * ((at + 1) % 65521) for at, bit in enumerate(bits)) % 2**64
    assert _checksum(values, 0) == (plain, weighted)
    cut = n // 3  # of dealt weights every process sums its part
    assert _total([_checksum(values[:cut], 0), _checksum(values[cut:], cut)]) == (plain, weighted)


def test_the_embedded_model_has_the_fingerprint_that_runs_of_earlier_versions_recorded() -> None:
    lm = load_model("embedded", Loading(device="cpu", dtype="float32"))
    assert base_fingerprint(lm) == "2747fd17c3d20743d4c7edba18962ced"
