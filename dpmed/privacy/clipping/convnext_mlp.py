"""A ConvNeXt block after its depthwise convolution, as one recorded function.

    output = shortcut + gamma · (W₂ gelu(W₁ (x̂ w + b) + b₁) + b₂),   x̂ = (x − mean) · rstd

Against ordinary autograd it saves memory: x̂ is kept once, not the norm's input and its output, and
in wide maps the input of `gamma` is not kept at all. It saves time: the norm's affine part is
merged into W₁, and rows are worked through in chunks that stay in the cache from one operation to
the next. What is recorded is the same as if every layer had run under its own rule.

Legend of shape suffixes: R rows, T = H·W positions, C channels, P hidden channels, B units,
k = R/B rows of a unit, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from dpmed.privacy.clipping.layer import compute_dtype, like_weight

_aten = torch.ops.aten

# Bytes of hidden activations worked on at a time: enough for a matrix product to run at full
# speed, little enough to stay in the last level of cache and to need no large buffers.
CHUNK_BYTES = 16 * 2**20


# timm brings its own GELU modules, with a dummy argument, and no name for their form.
_FORM_OF_NAME = {
    "timm.layers.activations.GELU": "none",
    "timm.layers.activations.GELUTanh": "tanh",
}


def gelu_form(act: Any) -> str | None:
    """Which form of GELU a module computes, in torch's terms; None if it is no GELU."""
    if type(act) is nn.GELU:
        return act.approximate
    return _FORM_OF_NAME.get(f"{type(act).__module__}.{type(act).__qualname__}")


class ScaledMlp(torch.autograd.Function):
    """(shortcut +) gamma · MLP(norm(x)) on (R, C, H, W); every parameter is recorded.

    Arguments: x, shortcut or None, the tape's anchor, the block with its `norm`, `mlp`, `gamma`.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, shortcut: Tensor | None, anchor: Tensor, block: Any
    ) -> Tensor:
        """The output, and what the backward needs."""
        norm, fc1, fc2, form = block.norm, block.mlp.fc1, block.mlp.fc2, gelu_form(block.mlp.act)
        dtype = compute_dtype(input)
        rows_RTC = _to_rows(input)
        wide = torch.promote_types(rows_RTC.dtype, norm.weight.dtype)
        # The kernel is slower without weight and bias than with ones and zeros.
        ones, zeros = torch.ones_like(norm.weight), torch.zeros_like(norm.weight)
        normed_RTC, _, rstd = torch.native_layer_norm(
            rows_RTC.to(wide), norm.normalized_shape, ones, zeros, norm.eps
        )
        normed_RTC = normed_RTC.to(dtype)
        # W₁ (x̂ w + b) + b₁ = (W₁ diag w) x̂ + (W₁ b + b₁)
        matrix1, matrix2 = fc1.weight.flatten(1), fc2.weight.flatten(1).to(dtype)
        merged = (matrix1 * norm.weight).to(dtype)
        bias1, bias2 = torch.addmv(fc1.bias, matrix1, norm.bias).to(dtype), fc2.bias.to(dtype)
        hidden_RTP = normed_RTC.new_empty(*rows_RTC.shape[:2], len(merged))
        active_RTP = torch.empty_like(hidden_RTP)
        # Where T ≥ P, gᵀa gives gamma's gradient for less than keeping gamma's input would cost.
        keeps_output = rows_RTC.shape[1] < len(merged)
        output_RTC = torch.empty_like(normed_RTC) if keeps_output else None
        result_RTC = torch.empty_like(rows_RTC, dtype=wide, memory_format=torch.contiguous_format)
        shortcut_RTC = None if shortcut is None else _to_rows(shortcut)
        for rows in _chunks(hidden_RTP, rows_per_unit=1):
            hidden, active = hidden_RTP[rows], active_RTP[rows]
            torch.addmm(bias1, _flat(normed_RTC[rows]), merged.t(), out=_flat(hidden))
            _aten.gelu.out(hidden, approximate=form, out=active)
            output = torch.empty_like(normed_RTC[rows]) if output_RTC is None else output_RTC[rows]
            torch.addmm(bias2, _flat(active), matrix2.t(), out=_flat(output))
            if shortcut_RTC is None:
                torch.mul(output, block.gamma, out=result_RTC[rows])
            else:
                scaled = output.to(wide)
                torch.addcmul(
                    shortcut_RTC[rows].to(wide), scaled, block.gamma, out=result_RTC[rows]
                )
        ctx.save_for_backward(normed_RTC, rstd, hidden_RTP, active_RTP, output_RTC)
        ctx.block = block
        return _to_maps(result_RTC, like=input)

    @staticmethod
    def backward(ctx: Any, grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x and of the shortcut."""
        grads_RTC = _to_rows(grads).contiguous()
        backward = _Backward(ctx.block, grads_RTC, *ctx.saved_tensors)
        for rows in _chunks(ctx.saved_tensors[2], backward.rows_per_unit):
            backward.run(rows)
        backward.record()
        grads_shortcut = grads if ctx.needs_input_grad[1] else None
        return _to_maps(backward.grads_input_RTC, like=grads), grads_shortcut, None, None


class _Backward:
    """The backward of one block: buffers for what is recorded, filled chunk by chunk.

    Of each matrix either the instances [B, P, C] are filled, or the two factors of a Gram record.
    """

    def __init__(
        self,
        block: Any,
        grads_RTC: Tensor,
        normed_RTC: Tensor,
        rstd: Tensor,
        hidden_RTP: Tensor,
        active_RTP: Tensor,
        output_RTC: Tensor | None,
    ) -> None:
        self.block, self.tape = block, block._dpmed_tape
        self.grads_RTC, self.normed_RTC, self.rstd = grads_RTC, normed_RTC, rstd
        self.hidden_RTP, self.active_RTP, self.output_RTC = hidden_RTP, active_RTP, output_RTC
        num_rows, num_positions, num_channels = grads_RTC.shape
        num_hidden, dtype = hidden_RTP.shape[2], hidden_RTP.dtype
        num_units = self.tape.num_units(num_rows, block.gamma)
        self.rows_per_unit = num_rows // num_units
        self.matrix1 = block.mlp.fc1.weight.detach().flatten(1).to(dtype)
        self.matrix2 = block.mlp.fc2.weight.detach().flatten(1).to(dtype)
        self.scaled2 = (self.matrix2 * block.gamma.detach()[:, None]).to(dtype)
        prefers_gram = self.tape.prefers_gram(
            num_positions * self.rows_per_unit, num_channels, num_hidden, hidden_RTP
        )
        self.is_gram1, self.is_gram2 = prefers_gram, prefers_gram and output_RTC is not None
        wide = rstd.dtype
        self.grads_input_RTC = normed_RTC.new_empty(grads_RTC.shape, dtype=wide)
        if self.is_gram1:
            self.affine_RTC = torch.empty_like(normed_RTC)
            self.grads_hidden_RTP = torch.empty_like(hidden_RTP)
        else:
            self.instances1_BPC = hidden_RTP.new_empty(num_units, num_hidden, num_channels)
            self.bias1_BP = hidden_RTP.new_empty(num_units, num_hidden)
        if self.is_gram2:
            self.scaled_RTC = torch.empty_like(normed_RTC)
        else:
            self.instances2_BCP = hidden_RTP.new_empty(num_units, num_channels, num_hidden)
            self.bias2_BC = hidden_RTP.new_empty(num_units, num_channels)
        self.gamma_BC, self.norm_weight_BC, self.norm_bias_BC = (
            rstd.new_empty(num_units, num_channels) for _ in range(3)
        )

    def run(self, rows: slice) -> None:
        """From the gradient of the chunk's output to that of its input."""
        units = slice(rows.start // self.rows_per_unit, rows.stop // self.rows_per_unit)
        grads_active = self._second_matrix(rows, units)
        grads_hidden = self.grads_hidden_RTP[rows] if self.is_gram1 else grads_active
        _aten.gelu_backward.grad_input(
            grads_active,
            self.hidden_RTP[rows],
            approximate=gelu_form(self.block.mlp.act),
            grad_input=grads_hidden,
        )
        grads_affine = self._first_matrix(rows, units, grads_hidden)
        self._norm(rows, units, grads_affine)

    def _second_matrix(self, rows: slice, units: slice) -> Tensor:
        """W₂, b₂ and gamma; returns the gradient of the active units."""
        grads, active, gamma = self.grads_RTC[rows], self.active_RTP[rows], self.block.gamma
        if self.output_RTC is None:
            grads = grads.to(active.dtype)
            # M = gᵀa, of the unscaled gradient: gamma's is Σ_p M ⊙ W₂ + b₂ Σ_t g, W₂'s gamma ⊙ M.
            products = torch.bmm(
                self._by_unit(grads).transpose(1, 2),
                self._by_unit(active),
                out=self.instances2_BCP[units],
            )
            sums = self._by_unit(grads).sum(1)
            self.gamma_BC[units] = (products * self.matrix2).sum(2) + sums * self.block.mlp.fc2.bias
            products.mul_(gamma[:, None])
            self.bias2_BC[units] = sums * gamma
            return (_flat(grads) @ self.scaled2).view_as(active)
        torch.sum(self._by_unit(grads * self.output_RTC[rows]), 1, out=self.gamma_BC[units])
        if self.is_gram2:
            scaled = torch.mul(grads, gamma, out=self.scaled_RTC[rows])
        else:
            scaled = (grads * gamma).to(active.dtype)
            torch.bmm(
                self._by_unit(scaled).transpose(1, 2),
                self._by_unit(active),
                out=self.instances2_BCP[units],
            )
            torch.sum(self._by_unit(scaled), 1, out=self.bias2_BC[units])
        return (_flat(scaled) @ self.matrix2).view_as(active)

    def _first_matrix(self, rows: slice, units: slice, grads_hidden: Tensor) -> Tensor:
        """W₁ and b₁; returns the gradient of x̂ w + b."""
        normed, norm = self.normed_RTC[rows], self.block.norm
        affine = self.affine_RTC[rows] if self.is_gram1 else torch.empty_like(normed)
        torch.addcmul(norm.bias, normed.to(norm.weight.dtype), norm.weight, out=affine)
        if not self.is_gram1:
            torch.bmm(
                self._by_unit(grads_hidden).transpose(1, 2),
                self._by_unit(affine),
                out=self.instances1_BPC[units],
            )
            torch.sum(self._by_unit(grads_hidden), 1, out=self.bias1_BP[units])
        return (_flat(grads_hidden) @ self.matrix1).view_as(normed)

    def _norm(self, rows: slice, units: slice, grads_affine: Tensor) -> None:
        """The norm's weight and bias, and the gradient of its input."""
        rstd, norm = self.rstd[rows], self.block.norm
        grads, normed = grads_affine.to(rstd.dtype), self.normed_RTC[rows].to(rstd.dtype)
        torch.sum(self._by_unit(grads), 1, out=self.norm_bias_BC[units])
        torch.sum(self._by_unit(grads * normed), 1, out=self.norm_weight_BC[units])
        # The kernel takes x̂ for its input where the mean is 0 and the deviation 1.
        grads_input = _aten.native_layer_norm_backward(
            grads,
            normed,
            norm.normalized_shape,
            torch.zeros_like(rstd),
            torch.ones_like(rstd),
            norm.weight,
            None,
            [True, False, False],
        )[0]
        torch.mul(grads_input, rstd, out=self.grads_input_RTC[rows])

    def record(self) -> None:
        """Hand everything to the tape."""
        block, tape = self.block, self.tape
        norm, fc1, fc2 = block.norm, block.mlp.fc1, block.mlp.fc2
        tape.add_instance(block.gamma, self.gamma_BC)
        tape.add_instance(norm.weight, self.norm_weight_BC)
        tape.add_instance(norm.bias, self.norm_bias_BC)
        if self.is_gram1:
            factors = self.affine_RTC, self.grads_hidden_RTP
            tape.add_gram(fc1.weight, fc1.bias, *factors, like_weight(fc1.weight))
        else:
            tape.add_instance(fc1.weight, like_weight(fc1.weight)(self.instances1_BPC))
            tape.add_instance(fc1.bias, self.bias1_BP)
        if self.is_gram2:
            factors = self.active_RTP, self.scaled_RTC
            tape.add_gram(fc2.weight, fc2.bias, *factors, like_weight(fc2.weight))
        else:
            tape.add_instance(fc2.weight, like_weight(fc2.weight)(self.instances2_BCP))
            tape.add_instance(fc2.bias, self.bias2_BC)

    def _by_unit(self, rows_RTD: Tensor) -> Tensor:
        """(r, T, D) as (units, k·T, D)."""
        if self.rows_per_unit == 1:
            return rows_RTD
        return rows_RTD.reshape(-1, self.rows_per_unit * rows_RTD.shape[1], rows_RTD.shape[2])


def _chunks(hidden_RTP: Tensor, rows_per_unit: int) -> Iterator[slice]:
    """Ranges of rows, whole units, of about CHUNK_BYTES hidden activations; one on CUDA."""
    num_rows = len(hidden_RTP)
    size = max(1, num_rows)
    if not hidden_RTP.is_cuda and num_rows:
        fitting = CHUNK_BYTES // (hidden_RTP[0].numel() * hidden_RTP.itemsize)
        size = max(rows_per_unit, fitting // rows_per_unit * rows_per_unit)
    for start in range(0, num_rows, size):
        yield slice(start, min(start + size, num_rows))


def _to_rows(maps: Tensor) -> Tensor:
    """(R, C, H, W) as (R, H·W, C): a view of a channels_last tensor."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2)


def _to_maps(rows: Tensor, *, like: Tensor) -> Tensor:
    """(R, H·W, C) as (R, C, H, W), channels_last."""
    return rows.unflatten(1, like.shape[2:]).permute(0, 3, 1, 2)


def _flat(rows: Tensor) -> Tensor:
    return rows.flatten(0, 1)
