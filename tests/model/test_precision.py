"""model/precision.py: half precision only where it keeps the vectors' direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model import precision
from model.precision import chosen_device, chosen_precision, in_precision, pack_linears, without_plans
from model.settings import UnusableModel

CPU = torch.device("cpu")


class Doubler(torch.nn.Module):
    """A parameter and a buffer, as models with rotary positions have."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(8, 8)
        self.register_buffer("table", torch.ones(3))


def answers(cosine: float) -> precision.VectorsOf:
    """Unit vectors whose fp32 and half-precision versions meet at that cosine."""

    def vectors_of(model: torch.nn.Module, texts: Sequence[str]) -> NDArray[np.float32]:
        half = next(model.parameters(), torch.zeros(1, dtype=torch.bfloat16)).dtype != torch.float32
        vector = [cosine, (1 - cosine**2) ** 0.5] if half else [1.0, 0.0]
        return np.array([vector] * len(texts), dtype=np.float32)

    return vectors_of


@pytest.mark.parametrize(("cosine", "dtype"), [(0.9995, "bf16"), (0.9985, "fp32"), (float("nan"), "fp32")])
def test_half_precision_is_taken_where_the_probes_keep_their_direction(
    monkeypatch: pytest.MonkeyPatch, cosine: float, dtype: str
) -> None:
    monkeypatch.setattr(precision, "fast_half", lambda device: "bf16")
    # Packing needs the processor's own instructions, which the machine of this test may lack.
    _, chosen, found = chosen_precision(Doubler(), CPU, "auto", answers(cosine), pack=False)
    assert chosen == dtype
    assert found == pytest.approx(cosine, abs=1e-6, nan_ok=True)


def test_a_processor_without_it_runs_fp32_and_compares_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "fast_half", lambda device: None)
    model = Doubler()
    assert chosen_precision(model, CPU, "auto", answers(1.0)) == (model, "fp32", None)


def test_a_precision_that_was_asked_for_is_taken_and_its_cosine_told() -> None:
    lowered, chosen, cosine = chosen_precision(Doubler(), CPU, "fp16", answers(0.5))
    assert (chosen, next(lowered.parameters()).dtype) == ("fp16", torch.float16)
    assert cosine == pytest.approx(0.5)


def test_tables_keep_their_precision_and_the_original_is_left_alone() -> None:
    model = Doubler()
    lowered = in_precision(model, "bf16")
    assert next(lowered.parameters()).dtype == torch.bfloat16
    assert lowered.table.dtype == torch.float32
    assert model.linear.weight.dtype == torch.float32


def test_a_packed_linear_computes_what_the_linear_did() -> None:
    if precision.fast_half(CPU) != "bf16":
        pytest.skip("this processor has no bf16 instructions, so nothing is packed")
    torch.manual_seed(0)
    plain = in_precision(torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.Linear(48, 8)), "bf16")
    packed = in_precision(plain, "bf16")
    pack_linears(packed)
    assert not any(isinstance(module, torch.nn.Linear) for module in packed.modules())
    inputs = torch.randn(5, 7, 64, dtype=torch.bfloat16)
    with torch.inference_mode():
        assert torch.allclose(packed(inputs).float(), plain(inputs).float(), atol=0.02)


def test_a_torch_without_the_operators_keeps_its_linears(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_PACK", "no_such_operator")
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    pack_linears(model)
    assert type(model[0]) is torch.nn.Linear


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    assert chosen_device("cpu") == CPU
    with pytest.raises(UnusableModel, match=r"SIMSTREAM_MODEL__DEVICE=cuda:63.*'auto'"):
        chosen_device("cuda:63")


def test_a_gpu_plans_no_attention_and_a_processor_is_left_alone() -> None:
    attention: Any = torch.backends.cuda
    before = attention.cudnn_sdp_enabled()
    try:
        attention.enable_cudnn_sdp(True)
        without_plans(CPU)
        assert attention.cudnn_sdp_enabled()
        without_plans(torch.device("cuda"))
        assert not attention.cudnn_sdp_enabled()
        assert attention.flash_sdp_enabled()
    finally:
        attention.enable_cudnn_sdp(before)
