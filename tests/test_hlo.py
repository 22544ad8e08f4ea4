# ruff: noqa: E501 (XLA's lines are long)
import pytest

from benchmarks.hlo import array_bytes, kernels, parse

# Three turns of a loop with a convolution, its reduction, a slice and a copy; a product outside.
PROGRAM = """HloModule jit_step, is_scheduled=true

%fused_reduce (p.0: bf16[2,8,8,4], p.1: f32[16,4]) -> (f32[4], f32[1,4]) {
  %p.0 = bf16[2,8,8,4]{3,2,1,0} parameter(0)
  %p.1 = f32[16,4]{1,0} parameter(1)
  %zero = f32[] constant(0)
  %wide = f32[2,8,8,4]{3,2,1,0} convert(%p.0)
  %sum = f32[4]{0} reduce(%wide, %zero), dimensions={0,1,2}, to_apply=%add
  %part = f32[1,4]{1,0} slice(%p.1), slice={[3:4], [0:4]}
  ROOT %both = (f32[4]{0}, f32[1,4]{1,0}) tuple(%sum, %part)
}

%fused_slice (p.2: f32[16,4]) -> f32[1,4] {
  %p.2 = f32[16,4]{1,0} parameter(0)
  ROOT %row = f32[1,4]{1,0} slice(%p.2), slice={[0:1], [0:4]}
}

%body (state: (s32[], bf16[2,8,8,4], bf16[4,3,3,4], f32[16,4])) -> (s32[], bf16[2,8,8,4], bf16[4,3,3,4], f32[16,4]) {
  %state = (s32[], bf16[2,8,8,4]{3,2,1,0}, bf16[4,3,3,4]{3,2,1,0}, f32[16,4]{1,0}) parameter(0)
  %turn = s32[] get-tuple-element(%state), index=0
  %x = bf16[2,8,8,4]{3,2,1,0} get-tuple-element(%state), index=1
  %w = bf16[4,3,3,4]{3,2,1,0} get-tuple-element(%state), index=2
  %t = f32[16,4]{1,0} get-tuple-element(%state), index=3
  %conv = (bf16[2,8,8,4]{3,2,1,0}, u8[0]{0}) custom-call(%x, /*index=1*/%w), window={size=3x3 pad=1_1x1_1}, dim_labels=b01f_o01i->b01f, custom_call_target="__cudnn$convForward"
  %y = bf16[2,8,8,4]{3,2,1,0} get-tuple-element(%conv), index=0
  %reduced = (f32[4]{0}, f32[1,4]{1,0}) fusion(%y, %t), kind=kInput, calls=%fused_reduce
  %sliced = f32[1,4]{1,0} fusion(%t), kind=kLoop, calls=%fused_slice
  %copied = f32[16,4]{0,1} copy(%t)
  ROOT %next = (s32[], bf16[2,8,8,4]{3,2,1,0}, bf16[4,3,3,4]{3,2,1,0}, f32[16,4]{1,0}) tuple(%turn, %y, %w, %t)
}

%condition (state.1: (s32[], bf16[2,8,8,4], bf16[4,3,3,4], f32[16,4])) -> pred[] {
  %state.1 = (s32[], bf16[2,8,8,4]{3,2,1,0}, bf16[4,3,3,4]{3,2,1,0}, f32[16,4]{1,0}) parameter(0)
  %turn.1 = s32[] get-tuple-element(%state.1), index=0
  ROOT %go = pred[] constant(true)
}

ENTRY %main (a: (s32[], bf16[2,8,8,4], bf16[4,3,3,4], f32[16,4]), m: f32[8,16]) -> f32[8,4] {
  %a = (s32[], bf16[2,8,8,4]{3,2,1,0}, bf16[4,3,3,4]{3,2,1,0}, f32[16,4]{1,0}) parameter(0)
  %m = f32[8,16]{1,0} parameter(1)
  %while.1 = (s32[], bf16[2,8,8,4]{3,2,1,0}, bf16[4,3,3,4]{3,2,1,0}, f32[16,4]{1,0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %t.1 = f32[16,4]{1,0} get-tuple-element(%while.1), index=3
  %product = (f32[8,4]{1,0}, s8[1]{0}) custom-call(%m, %t.1), custom_call_target="__cublas$gemm", backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  ROOT %out = f32[8,4]{1,0} get-tuple-element(%product), index=0
}
"""


def test_kernels_of_a_program():
    found = {k.name: k for k in kernels(PROGRAM)}
    assert list(found) == ["conv", "reduced", "sliced", "copied", "product"]
    assert [k.kind for k in found.values()] == ["convolution", "reduction", "stack", "copy",
                                                "product"]
    assert [(k.times, k.in_loop) for k in found.values()] == [(3, True)] * 4 + [(1, False)]
    images, kernel = 2 * 2 * 8 * 8 * 4, 2 * 4 * 3 * 3 * 4
    assert (found["conv"].read, found["conv"].written) == (images + kernel, images)
    assert found["conv"].flops == 2 * (2 * 8 * 8 * 4) * (3 * 3 * 4)
    assert found["conv"].dtype == "bf16"
    # of the table one row alone
    assert (found["reduced"].read, found["reduced"].written) == (images + 16, 16 + 16)
    assert (found["sliced"].read, found["sliced"].written) == (16, 16)
    assert (found["copied"].read, found["copied"].written) == (256, 256)
    assert found["product"].flops == 2 * 8 * 4 * 16 and found["product"].dtype == "f32"


def test_operations_of_gradients():
    forward = kernels(PROGRAM)[0].flops
    # gradient of the output and kernel -> gradient of the images: the same products
    assert kernels(PROGRAM.replace("convForward", "convBackwardInput"))[0].flops == forward
    # images and gradient of the output -> gradient of the kernel
    line = next(line for line in PROGRAM.splitlines() if "%conv =" in line)
    weights = line.replace("convForward", "convBackwardFilter").replace(
        "(bf16[2,8,8,4]{3,2,1,0}, u8", "(bf16[4,3,3,4]{3,2,1,0}, u8").replace("*/%w", "*/%x")
    assert kernels(PROGRAM.replace(line, weights))[0].flops == forward


def test_bytes_of_a_shape():
    assert array_bytes("(bf16[2,3]{1,0}, pred[5]{0}, f32[])") == 12 + 5 + 4


def test_another_text_is_refused():
    with pytest.raises(ValueError, match="no program of XLA"):
        parse("module @jit_step {")
