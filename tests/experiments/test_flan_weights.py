"""Weights of a quantised graph are read back as the float matrices they stand for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from experiments.shared.flan_weights import weights

onnx = pytest.importorskip("onnx", reason="needs the onnxruntime extra")


def test_matrices_embeddings_and_norms_are_found_by_their_module_and_dequantised(tmp_path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    whole, table = rng.integers(-128, 128, (3, 2), dtype=np.int8), rng.integers(0, 256, (5, 3), dtype=np.uint8)
    norm = rng.normal(size=3).astype(np.float32)
    stored = {
        "onnx::MatMul_7_quantized": whole,
        "onnx::MatMul_7_scale": np.float32(0.25),
        "onnx::MatMul_7_zero_point": np.int8(3),
        "enc.embed_tokens.weight_quantized": table,
        "enc.embed_tokens.weight_scale": np.float32(0.5),
        "enc.embed_tokens.weight_zero_point": np.uint8(100),
        "enc.block.0.layer.0.layer_norm.weight": norm,
        "elsewhere.layer_norm.weight": norm,
    }
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    inputs = ["x", "onnx::MatMul_7_quantized", "z", "onnx::MatMul_7_zero_point"]
    node = helper.make_node("MatMulInteger", inputs, ["y"], name="/block.0/layer.0/SelfAttention/q/MatMul_quant")
    ends = [helper.make_tensor_value_info(name, TensorProto.INT32, None) for name in "xy"]
    onnx.save(helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:], tensors)), tmp_path / "e.onnx")
    found = weights(tmp_path / "e.onnx", "enc.")
    assert set(found) == {
        "block.0.layer.0.SelfAttention.q.weight",
        "embed_tokens.weight",
        "block.0.layer.0.layer_norm.weight",
    }
    expected = (whole.astype(np.float32).T - 3) / 4
    np.testing.assert_array_equal(found["block.0.layer.0.SelfAttention.q.weight"], expected)
    np.testing.assert_array_equal(found["embed_tokens.weight"], (table.astype(np.float32) - 100) / 2)
    np.testing.assert_array_equal(found["block.0.layer.0.layer_norm.weight"], norm)
