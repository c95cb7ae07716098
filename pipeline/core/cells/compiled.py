"""The loops over time in C, made from a cell's derivation and compiled at first use with the system's C compiler.

One replica at a time, float32: its pre-activations of a timestep stay in the first cache, the recurrent product runs
over packed panels of the weights, and the pointwise step is vectorised by the compiler, for whatever the processor has.
A sum over units or inputs is always added in the same order, whatever the batch; one over timesteps and examples, in
pieces that depend on both.

The library lies in a cache folder under a name made of its source, the compiler and the processor: nothing is compiled
twice, and none is used on a processor for which it was not made. Without a compiler the eager loops run.
"""

from __future__ import annotations

import ctypes
import fcntl
import functools
import hashlib
import logging
import math
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, fx

from pipeline.core.cells.derivation import Derivation, inputs_of, operation, outputs_of

if TYPE_CHECKING:
    from pipeline.core.cells.recurrence import Gradients, Run

LOG = logging.getLogger(__name__)

CACHE_VARIABLE = "GRADIENT_DYNAMICS_CACHE"
"""The environment variable that names the cache folder, where it is not to be that of the user."""

FLAGS = ("-O3", "-shared", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast")
NATIVE = (("-march=native", "-mprefer-vector-width=512"), ("-march=native",), ("-mcpu=native",), ())
"""What makes a compiler use all that the processor has; the first that it accepts is taken."""

LIMIT_S = 120
"""For one run of the compiler, which takes one second."""

EXPRESSIONS = {
    "add": "{0} + {1}",
    "sub": "{0} - {1}",
    "rsub": "{1} - {0}",
    "mul": "{0} * {1}",
    "div": "{0} / {1}",
    "neg": "-{0}",
    "abs": "fabsf({0})",
    "sign": "{0} != {0} ? {0} : ({0} > 0) - ({0} < 0)",
    "sgn": "{0} != {0} ? {0} : ({0} > 0) - ({0} < 0)",
    "square": "{0} * {0}",
    "reciprocal": "1.0f / {0}",
    "sqrt": "sqrtf({0})",
    "exp": "exp_({0})",
    "log": "log_({0})",
    "log1p": "log1p_({0})",
    "sin": "sinf({0})",
    "cos": "cosf({0})",
    "sigmoid": "sigmoid_({0})",
    "tanh": "tanh_({0})",
    "relu": "{0} < 0.0f ? 0.0f : {0}",
    "leaky_relu": "{0} < 0.0f ? {0} * {1} : {0}",
    "maximum": "max_({0}, {1})",
    "minimum": "min_({0}, {1})",
    "clamp_min": "{0} < {1} ? {1} : {0}",
    "clamp_max": "{0} > {1} ? {1} : {0}",
    "gt": "{0} > {1}",
    "ge": "{0} >= {1}",
    "lt": "{0} < {1}",
    "le": "{0} <= {1}",
    "eq": "{0} == {1}",
    "ne": "{0} != {1}",
    "logical_and": "({0} != 0) & ({1} != 0)",
    "logical_not": "!{0}",
    "where": "{0} ? {1} : {2}",
    "masked_fill": "{1} ? {2} : {0}",
    "masked_fill_": "{1} ? {2} : {0}",
    "zeros_like": "0.0f",
    "ones_like": "1.0f",
    "full_like": "{1}",
    "scalar_tensor": "{0}",
    "sigmoid_backward": "{0} * (1.0f - {1}) * {1}",
    "tanh_backward": "{0} * (1.0f - {1} * {1})",
    "threshold_backward": "{1} <= {2} ? 0.0f : {0}",
    "leaky_relu_backward": "{1} > 0.0f ? {0} : {0} * {2}",
}
"""Operations of torch as C, so that a NaN stays one."""

HEADER = """
#include <math.h>
#include <string.h>

#if defined(__AVX512F__)
enum { WIDTH = 16, VECTORS = 2, ROWS = 8 };
#elif defined(__AVX__)
enum { WIDTH = 8, VECTORS = 2, ROWS = 4 };
#else
enum { WIDTH = 4, VECTORS = 4, ROWS = 4 };
#endif
enum { PANEL = WIDTH * VECTORS, FEW = 4 };
typedef float vector __attribute__((vector_size(4 * WIDTH), aligned(4), may_alias));

static inline float of_bits(int bits) { float x; memcpy(&x, &bits, 4); return x; }

/* Written without branches, which would keep the loops around them from being vectorised; a NaN stays one. */
static inline float max_(float x, float y) { float z = x > y ? x : y; return x != x ? x : z; }
static inline float min_(float x, float y) { float z = x < y ? x : y; return x != x ? x : z; }

/* e^(x - k ln 2) - 1 to 2 units in the last place (Cephes' polynomial), k = x / ln 2 rounded. */
static inline float reduced_expm1_(float x, int *k) {
    float rounded = x * 1.44269504088896341f + 12582912.0f;
    memcpy(k, &rounded, 4); *k -= 0x4B400000;
    float n = rounded - 12582912.0f;
    float r = x - n * 0.693359375f;
    r = r + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f; p = p * r + 8.3334519073e-3f; p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f; p = p * r + 5.0000001201e-1f;
    return p * r * r + r;
}

/* e^x; 2^k in two factors, so that it may overflow and underflow. */
static inline float exp_(float x) {
    float y = x > 89.0f ? 89.0f : x;
    y = y < -104.0f ? -104.0f : y;
    int k;
    float p = reduced_expm1_(y, &k) + 1.0f;
    int half = k >> 1;
    return p * of_bits((half + 127) << 23) * of_bits((k - half + 127) << 23);
}

/* ln x to 2 units in the last place (Cephes' polynomial); of a denormal number that of the smallest normal one. */
static inline float log_(float x) {
    int bits; memcpy(&bits, &x, 4);
    int k = (bits >> 23) - 126;
    float m = of_bits((bits & 0x007FFFFF) | 0x3F000000);
    int small = m < 0.707106781186547524f;
    float e = (float)(small ? k - 1 : k);
    float r = small ? m + m - 1.0f : m - 1.0f, z = r * r;
    float p = 7.0376836292e-2f;
    p = p * r - 1.1514610310e-1f; p = p * r + 1.1676998740e-1f; p = p * r - 1.2420140846e-1f;
    p = p * r + 1.4249322787e-1f; p = p * r - 1.6668057665e-1f; p = p * r + 2.0000714765e-1f;
    p = p * r - 2.4999993993e-1f; p = p * r + 3.3333331174e-1f;
    float y = p * r * z + e * -2.12194440e-4f - 0.5f * z;
    float found = r + y + e * 0.693359375f;
    found = x < INFINITY ? found : x; /* of inf itself, and of NaN */
    found = x < 1.17549435e-38f ? -87.3365448f : found;
    found = x < 0.0f ? NAN : found;
    return x == 0.0f ? -INFINITY : found;
}

/* ln (1 + x), by what rounding made of 1 + x (Goldberg, 1991). */
static inline float log1p_(float x) {
    float u = 1.0f + x, d = u - 1.0f, y = log_(u) * (x / d);
    y = u < INFINITY ? y : x;
    return d == 0.0f ? x : y;
}

/* Of e^-x only what 1 + e^-x feels: one factor 2^k will do, which is inf where e^-x overflows. */
static inline float sigmoid_(float x) {
    float y = x < -89.0f ? 89.0f : -x;
    y = y < -87.0f ? -87.0f : y;
    int k;
    float p = reduced_expm1_(y, &k) + 1.0f;
    return 1.0f / (1.0f + p * of_bits((k + 127) << 23));
}

/* By e^2|x| - 1, from which no digits are lost near 0; where tanh nears 1, what it lacks of it is computed. */
static inline float tanh_(float x) {
    float a = fabsf(x);
    a = a > 20.0f ? 20.0f : a;
    int k;
    float p = reduced_expm1_(2.0f * a, &k);
    float scale = of_bits((k + 127) << 23);
    float expm1 = p * scale + (scale - 1.0f), share = 1.0f / (expm1 + 2.0f);
    return copysignf(a < 0.625f ? expm1 * share : 1.0f - 2.0f * share, x);
}

/* Packs w, (columns, depth) by strides, into panels: (columns / width, depth, width), zeros where columns end. */
static inline __attribute__((always_inline)) void pack(
    const int width, long columns, long depth, const float *w, const long column_stride, long depth_stride,
    float *out) {
    for (long first = 0; first < columns; first += width, w += width * column_stride) {
        const long used = columns - first < width ? columns - first : width;
        if (depth_stride == 1 && column_stride != 1) { /* read in the order in which they lie */
            if (used < width) memset(out, 0, 4 * width * depth);
            for (long j = 0; j < used; j++)
                for (long k = 0; k < depth; k++) out[k * width + j] = w[j * column_stride + k];
            out += width * depth;
        } else if (used == width)
            for (long k = 0; k < depth; k++, out += width)
                for (long j = 0; j < width; j++) out[j] = w[j * column_stride + k * depth_stride];
        else
            for (long k = 0; k < depth; k++, out += width)
                for (long j = 0; j < width; j++) out[j] = j < used ? w[j * column_stride + k * depth_stride] : 0.0f;
    }
}

/* out[i][:] += x[i][:] @ w for some rows and some vectors of a panel. */
static inline __attribute__((always_inline)) void tile(
    const int rows, const int vectors, long depth, const float *restrict x, const long x_row, const long x_depth,
    const float *restrict w, const long w_depth, float *out, long out_row) {
    vector sum[ROWS][VECTORS];
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) sum[i][v] = *(const vector *)(out + i * out_row + v * WIDTH);
    for (long k = 0; k < depth; k++, w += w_depth, x += x_depth)
        for (int i = 0; i < rows; i++)
            for (int v = 0; v < vectors; v++) sum[i][v] += x[i * x_row] * *(const vector *)(w + v * WIDTH);
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v++) *(vector *)(out + i * out_row + v * WIDTH) = sum[i][v];
}

/* out (B, columns rounded up to panels) += x (B, depth) @ packed w. */
static void product(
    long B, long depth, long columns, const float *x, long x_row, const float *w, float *out, long out_row) {
    for (long first = 0; first < columns; first += PANEL, w += depth * PANEL, out += PANEL) {
        long b = 0;
        if (columns - first > WIDTH) {
            for (; b + ROWS <= B; b += ROWS)
                tile(ROWS, VECTORS, depth, x + b * x_row, x_row, 1, w, PANEL, out + b * out_row, out_row);
            for (; b < B; b++) tile(1, VECTORS, depth, x + b * x_row, x_row, 1, w, PANEL, out + b * out_row, out_row);
        } else {
            for (; b + ROWS <= B; b += ROWS)
                tile(ROWS, 1, depth, x + b * x_row, x_row, 1, w, PANEL, out + b * out_row, out_row);
            for (; b < B; b++) tile(1, 1, depth, x + b * x_row, x_row, 1, w, PANEL, out + b * out_row, out_row);
        }
    }
}

/* out (rows and columns rounded up) += d^T u, of d packed by ROWS and u by PANEL. */
static void outer_product(
    long rows, long depth, long columns, const float *d, const float *u, float *out, long out_row) {
    for (long first = 0; first < columns; first += PANEL, u += depth * PANEL)
        for (long g = 0; g < rows; g += ROWS)
            if (columns - first > WIDTH)
                tile(ROWS, VECTORS, depth, d + g * depth, 1, ROWS, u, PANEL, out + g * out_row + first, out_row);
            else
                tile(ROWS, 1, depth, d + g * depth, 1, ROWS, u, PANEL, out + g * out_row + first, out_row);
}

/* The same of few rows: d as it is, its rows a multiple of FEW; columns beyond the last of u hold any number. */
static void flat_outer_product(
    long rows, long depth, long columns, const float *d, const float *u, long u_depth, float *out, long out_row) {
    for (long first = 0; first < columns; first += PANEL)
        for (long g = 0; g < rows; g += FEW)
            tile(FEW, VECTORS, depth, d + g, 1, rows, u + first, u_depth, out + g * out_row + first, out_row);
}

static inline float total_of(vector x) {
    float lanes[WIDTH]; memcpy(lanes, &x, sizeof lanes);
    for (int half = WIDTH / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

/* out (rows, columns) = x w^T, of few columns: w (columns, depth) as it is. */
static inline __attribute__((always_inline)) void dots(
    const int rows, long depth, long columns, const float *x, long x_row, const float *w, float *out) {
    for (long j = 0; j < columns; j++, w += depth) {
        vector sum[FEW];
        long k = 0;
        for (int i = 0; i < rows; i++) sum[i] = (vector){0};
        for (; k + WIDTH <= depth; k += WIDTH)
            for (int i = 0; i < rows; i++)
                sum[i] += *(const vector *)(x + i * x_row + k) * *(const vector *)(w + k);
        for (int i = 0; i < rows; i++) {
            float total = total_of(sum[i]);
            for (long l = k; l < depth; l++) total += x[i * x_row + l] * w[l];
            out[i * columns + j] = total;
        }
    }
}

static void flat_product(
    long B, long depth, long columns, const float *x, long x_row, const float *w, float *out) {
    long b = 0;
    for (; b + FEW <= B; b += FEW) dots(FEW, depth, columns, x + b * x_row, x_row, w, out + b * columns);
    for (; b < B; b++) dots(1, depth, columns, x + b * x_row, x_row, w, out + b * columns);
}
"""

LOOPS = """
enum {{ BLOCKS = {blocks}, FED_BY_H = {fed_by_h}, FED_BY_X = {fed_by_x}, FEEDING = {feeding} }};
enum {{ STATES = {states}, KEPT = {kept} }};

/* Examples, of as many timesteps as that takes, whose gradients are added to those of the weights at once. */
enum {{ EXAMPLES_AT_ONCE = 128 }};

static long rounded_up(long n, long to) {{ return (n + to - 1) / to * to; }}

static long timesteps_at_once(long T, long B) {{
    long n = EXAMPLES_AT_ONCE / (B ? B : 1);
    return n < 1 ? 1 : n > T ? T : n;
}}

/* Floats of scratch that a pass needs. */
long scratch_size(long T, long B, long H, long D) {{
    long rows_h = rounded_up(FED_BY_H * H, PANEL), rows_x = rounded_up(FED_BY_X * H, PANEL), C = rounded_up(H, PANEL);
    long M = timesteps_at_once(T, B) * B, G = BLOCKS * H, X = rounded_up(D + 1, PANEL), R = rounded_up(G, ROWS);
    long forward = FEEDING * rows_h * H + rows_x * D + (B + 1) * (G + PANEL) + KEPT * H;
    long backward = FEEDING * FED_BY_H * H * C + FED_BY_X * H * X + STATES * (B * C + H) + B * X + M * (G + R + D + FEW)
        + PANEL + M * (C > X ? C : X) + R * (FEEDING * C + X) + (D + FEW) * rounded_up(G, PANEL);
    return forward > backward ? forward : backward;
}}

/* States, taps: (T + 1, B, H) and (T, B, H) each; x by strides; weight (BLOCKS * H, FEEDING * H + D + 1). */
void forward(
    long T, long B, long H, long D, const float *weight, const float *x, long x_t, long x_b, const float *unit,
    float *kept, float *const *state, const float *const *tap, const long *tap_t, const long *tap_b, float *scratch) {{
    const long Z = FEEDING * H + D + 1, first_x = (BLOCKS - FED_BY_X) * H, A = BLOCKS * H + PANEL;
    float *weight_h[FEEDING + 1];
    for (int s = 0; s < FEEDING; s++, scratch += rounded_up(FED_BY_H * H, PANEL) * H)
        pack(PANEL, FED_BY_H * H, H, weight + s * H, Z, 1, weight_h[s] = scratch);
    float *weight_x = scratch, *bias = scratch + rounded_up(FED_BY_X * H, PANEL) * D;
    float *a = bias + A, *unused = a + B * A;
    pack(PANEL, FED_BY_X * H, D, weight + first_x * Z + FEEDING * H, Z, 1, weight_x);
    for (long g = 0; g < BLOCKS * H; g++) bias[g] = weight[g * Z + Z - 1];
    for (long t = 0; t < T; t++) {{
        for (long b = 0; b < B; b++) memcpy(a + b * A, bias, 4 * BLOCKS * H);
        product(B, D, FED_BY_X * H, x + t * x_t, x_b, weight_x, a + first_x, A);
        for (int s = 0; s < FEEDING; s++)
            product(B, H, FED_BY_H * H, state[s] + t * B * H, H, weight_h[s], a, A);
        for (long b = 0; b < B; b++) {{
            const float *restrict p = a + b * A;
            float *restrict k = kept ? kept + (t * B + b) * KEPT * H : unused;
            {forward_pointers}
            if (tap) {{
                {tap_pointers}
                _Pragma("GCC ivdep")
                for (long j = 0; j < H; j++) {{
                    {forward_tapped}
                }}
            }} else {{
                _Pragma("GCC ivdep")
                for (long j = 0; j < H; j++) {{
                    {forward}
                }}
            }}
        }}
    }}
}}

/* `end` and `first` (B, H) of each state: what comes in after the last timestep, or NULL, and what comes out before the
   first; `unit_grad` is added to. */
void backward(
    long T, long B, long H, long D, const float *weight, const float *x, long x_t, long x_b, const float *unit,
    const float *kept, float *const *state, const float *const *direct, const long *direct_t, const long *direct_b,
    const float *const *end, double threshold, float *const *total, float *const *first, float *unit_grad,
    float *weight_grad, float *x_grad, float *scratch) {{
    const long Z = FEEDING * H + D + 1, G = BLOCKS * H, first_x = (BLOCKS - FED_BY_X) * H;
    const long C = rounded_up(H, PANEL), X = rounded_up(D + 1, PANEL), R = rounded_up(G, ROWS), W = FEEDING * C + X;
    const long F = rounded_up(D + 1, FEW), flat_row = rounded_up(G, PANEL);
    const int flat = F < WIDTH; /* so few inputs that what is made of them alone is made transposed */
    const int flat_back = flat && FED_BY_X * H >= 4 * WIDTH; /* below that lanes take longer to add up than they save */
    const long N = timesteps_at_once(T, B);
    float *weight_h[FEEDING + 1], *carried[STATES];
    for (int s = 0; s < FEEDING; s++, scratch += FED_BY_H * H * C)
        pack(PANEL, H, FED_BY_H * H, weight + s * H, 1, Z, weight_h[s] = scratch);
    float *weight_x = scratch; scratch += FED_BY_X * H * X;
    if (x_grad && flat_back)
        pack(1, D, FED_BY_X * H, weight + first_x * Z + FEEDING * H, 1, Z, weight_x);
    else if (x_grad)
        pack(PANEL, D, FED_BY_X * H, weight + first_x * Z + FEEDING * H, 1, Z, weight_x);
    for (int s = 0; s < STATES; s++, scratch += B * C) {{
        memset(carried[s] = scratch, 0, 4 * B * C);
        for (long b = 0; end[s] && b < B; b++) memcpy(carried[s] + b * C, end[s] + b * H, 4 * H);
    }}
    float *unused = scratch; scratch += STATES * H;
    float *x_row = scratch; scratch += B * X;
    float *gradient = scratch; scratch += N * B * G;
    float *packed_gradient = scratch; scratch += N * B * R + PANEL;
    float *inputs = scratch; scratch += N * B * F;
    float *packed = scratch; scratch += N * B * (C > X ? C : X);
    float *sum = scratch; scratch += R * W;
    float *flat_sum = scratch;
    memset(sum, 0, 4 * R * W);
    memset(flat_sum, 0, 4 * F * flat_row);
    for (long stop = T; stop > 0; stop -= N) {{
        const long start = stop > N ? stop - N : 0, M = (stop - start) * B;
        for (long t = stop - 1; t >= start; t--) {{
            float *gradient_t = gradient + (t - start) * B * G;
            for (int s = 0; s < STATES; s++)
                if (direct[s])
                    for (long b = 0; b < B; b++) {{
                        const float *restrict from = direct[s] + t * direct_t[s] + b * direct_b[s];
                        for (long j = 0; j < H; j++) carried[s][b * C + j] += from[j];
                    }}
            if (threshold >= 0)
                for (long b = 0; b < B; b++) {{
                    double square = 0;
                    for (long j = 0; j < H; j++) square += (double)carried[0][b * C + j] * carried[0][b * C + j];
                    double scale = threshold / sqrt(square);
                    scale = scale > 1 ? 1 : scale;
                    for (long j = 0; j < H; j++) carried[0][b * C + j] = carried[0][b * C + j] * scale;
                }}
            for (long b = 0; b < B; b++) {{
                const float *restrict k = kept + (t * B + b) * KEPT * H;
                float *restrict d = gradient_t + b * G;
                {backward_pointers}
                _Pragma("GCC ivdep")
                for (long j = 0; j < H; j++) {{
                    {backward}
                }}
            }}
            for (int s = 0; s < FEEDING; s++)
                product(B, FED_BY_H * H, H, gradient_t, G, weight_h[s], carried[s], C);
            if (x_grad && flat_back) {{
                flat_product(B, FED_BY_X * H, D, gradient_t + first_x, G, weight_x, x_grad + t * B * D);
            }} else if (x_grad) {{
                memset(x_row, 0, 4 * B * X);
                product(B, FED_BY_X * H, D, gradient_t + first_x, G, weight_x, x_row, X);
                for (long b = 0; b < B; b++) memcpy(x_grad + (t * B + b) * D, x_row + b * X, 4 * D);
            }}
        }}
        pack(ROWS, G, M, gradient, 1, G, packed_gradient);
        for (int s = 0; s < FEEDING; s++) {{
            pack(PANEL, H, M, state[s] + start * B * H, 1, H, packed);
            outer_product(FED_BY_H * H, M, H, packed_gradient, packed, sum + s * C, W);
        }}
        for (long m = 0; m < M; m++) {{
            const float *from = x + (start + m / B) * x_t + m % B * x_b;
            for (long j = 0; j < F; j++) inputs[m * F + j] = j < D ? from[j] : j == D;
        }}
        if (flat) {{
            flat_outer_product(F, M, G, inputs, gradient, G, flat_sum, flat_row);
        }} else {{
            pack(PANEL, D + 1, M, inputs, 1, F, packed);
            outer_product(G, M, D + 1, packed_gradient, packed, sum + FEEDING * C, W);
        }}
    }}
    for (long g = 0; g < G; g++) {{
        for (int s = 0; s < FEEDING; s++) memcpy(weight_grad + g * Z + s * H, sum + g * W + s * C, 4 * H);
        for (long j = 0; j <= D; j++)
            weight_grad[g * Z + FEEDING * H + j] = flat ? flat_sum[j * flat_row + g] : sum[g * W + FEEDING * C + j];
    }}
    for (int s = 0; s < STATES; s++)
        for (long b = 0; b < B; b++) memcpy(first[s] + b * H, carried[s] + b * C, 4 * H);
}}
"""


class CompiledError(RuntimeError):
    """A step that cannot be written in C, or a compiler that does not compile it."""


def source_of(derivation: Derivation, num_fed_by_h: int, num_fed_by_x: int, num_feeding: int) -> str:
    """Return the loops of a cell as C.

    Raises:
        CompiledError: If the step has an operation that is not in `EXPRESSIONS`.
    """
    S, V = derivation.num_states, derivation.num_per_unit
    states, units = range(S), range(V)
    before, after = [f"before_{s}[j]" for s in states], [f"after_{s}[j]" for s in states]
    blocks, unit = [f"p[{i} * H + j]" for i in range(derivation.num_blocks)], [f"unit[{v} * H + j]" for v in units]
    kept = [f"k[{i} * H + j]" for i in range(derivation.num_kept)]
    stepped = [*blocks, *unit, *before]
    found = [f"d[{i} * H + j]" for i in range(derivation.num_blocks)]
    found += [*(f"unit_grad[{v} * H + j] +" for v in units), *(f"carry_{s}[j]" for s in states)]
    found += [f"total_{s}[j]" for s in states]
    row = "(t * B + b) * H"
    around = [f"const float *restrict before_{s} = state[{s}] + {row};" for s in states]
    return HEADER + LOOPS.format(
        blocks=derivation.num_blocks,
        fed_by_h=num_fed_by_h,
        fed_by_x=num_fed_by_x,
        feeding=num_feeding if num_fed_by_h else 0,
        states=S,
        kept=derivation.num_kept,
        forward_pointers=" ".join(
            [*around, *(f"float *restrict after_{s} = state[{s}] + {row} + B * H;" for s in states)]
        ),
        tap_pointers=" ".join(
            f"const float *restrict tap_{s} = tap[{s}] + t * tap_t[{s}] + b * tap_b[{s}];" for s in states
        ),
        forward=_body(derivation.forward.graph, stepped, [*after, *kept]),
        forward_tapped=_body(
            derivation.forward_tapped.graph, [*stepped, *(f"tap_{s}[j]" for s in states)], [*after, *kept]
        ),
        backward_pointers=" ".join(
            [
                *around,
                *(f"const float *restrict after_{s} = before_{s} + B * H;" for s in states),
                *(f"float *restrict carry_{s} = carried[{s}] + b * C;" for s in states),
                *(f"float *restrict total_{s} = total[{s}] ? total[{s}] + {row} : unused + {s} * H;" for s in states),
            ]
        ),
        backward=_body(
            derivation.backward.graph, [*kept, *unit, *before, *after, *(f"carry_{s}[j]" for s in states)], found
        ),
    )


def _body(graph: fx.Graph, given: Sequence[str], wanted: Sequence[str]) -> str:
    """Return the statements that compute a graph for one unit, from the places `given` to the places `wanted`."""
    names: dict[fx.Node, str] = {}
    lines = []
    for node, place in zip(inputs_of(graph), given, strict=True):
        names[node] = f"v{len(names)}"
        if node.users:
            lines.append(f"const float {names[node]} = {place};")
    for node in graph.nodes:
        if node.op == "call_function":
            names[node] = f"v{len(names)}"
            lines.append(f"const {_type(node)} {names[node]} = {_expression(node, names)};")
    lines += [
        f"{place}{'=' if place.endswith('+') else ' ='} {names[node]};"
        for place, node in zip(wanted, outputs_of(graph), strict=True)
    ]
    return "\n                    ".join(lines)


def _type(node: fx.Node) -> str:
    return "int" if getattr(node.meta["val"], "dtype", None) == torch.bool else "float"


def _expression(node: fx.Node, names: dict[fx.Node, str]) -> str:
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        raise CompiledError(f"the operation {node.target} has no form in C")
    defaults = [argument.default_value for argument in schema.arguments[len(node.args) :]]
    operands = [names[arg] if isinstance(arg, fx.Node) else arg for arg in (*node.args, *defaults)]
    if operation(node) == "pow" and operands[1] in {1, 2}:
        return " * ".join([str(operands[0])] * int(operands[1]))
    named = {
        argument.name: operand for argument, operand in zip(schema.arguments, operands, strict=False)
    } | node.kwargs
    plain = named.get("alpha", 1) == 1 and named.get("rounding_mode") is None
    if operation(node) not in EXPRESSIONS or not plain or not isinstance(node.meta["val"], Tensor):
        raise CompiledError(f"the operation {node.target} has no form in C")
    numbers = [_literal(each) for each in operands if isinstance(each, str | float | int)]
    return EXPRESSIONS[operation(node)].format(*numbers)


def _literal(operand: str | float) -> str:
    if isinstance(operand, str):
        return operand
    return f"({float(operand)!r}f)" if math.isfinite(operand) else f"({'-' if operand < 0 else ''}INFINITY)"


def cache_folder() -> Path:
    """Return where compiled loops lie: the user's cache, or the folder that the environment names."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gradient-dynamics"


@functools.cache
def compiler() -> str | None:
    """Return the path of the system's C compiler, or None."""
    return next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)


@functools.cache
def _processor() -> str:
    """Return what the processor is able to do, as far as the system says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    able = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return " ".join([platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability(), able])


def library_of(source: str, folder: Path | None = None) -> Path:
    """Return the compiled library of a source, after compiling it where it is not in the cache.

    Raises:
        CompiledError: If there is no compiler, or it fails.
    """
    cc = compiler()
    if cc is None:
        raise CompiledError("there is no C compiler (cc, gcc or clang)")
    version = _version(cc)
    key = hashlib.sha256("\0".join([source, *FLAGS, str(NATIVE), version, _processor()]).encode()).hexdigest()[:20]
    folder = cache_folder() if folder is None else folder
    library = folder / f"{key}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever comes second waits, and finds it
        if not library.exists():
            _compile(cc, source, library)
    return library


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(  # noqa: S603 - the compiler alone
            command, capture_output=True, text=True, errors="replace", check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        raise CompiledError(f"{command[0]} took more than {LIMIT_S} s") from None


@functools.cache
def _version(cc: str) -> str:
    return _run(cc, "--version").stdout


def _compile(cc: str, source: str, library: Path) -> None:
    with tempfile.TemporaryDirectory(dir=library.parent) as place:
        written, made = Path(place) / "loops.c", Path(place) / "loops.so"
        written.write_text(source, encoding="utf-8")
        for native in NATIVE:
            run = _run(cc, *FLAGS, *native, str(written), "-o", str(made), "-lm")
            if run.returncode == 0:
                with made.open("rb") as file:
                    os.fsync(file.fileno())
                os.replace(made, library)
                return
    raise CompiledError(f"{cc} failed: {run.stderr.strip()}")


class Compiled:
    """The loops of one cell in C; an `Engine` of `pipeline.core.cells.recurrence`. Each thread works its replicas."""

    name = "compiled"

    def __init__(self, library: Path, derivation: Derivation, num_feeding: int) -> None:
        self._num_blocks, self._num_per_unit = derivation.num_blocks, derivation.num_per_unit
        self._num_feeding = num_feeding
        self._loops = ctypes.CDLL(str(library))
        for name, result in (("scratch_size", ctypes.c_long), ("forward", None), ("backward", None)):
            getattr(self._loops, name).restype = result

    def forward(self, run: Run, taps: Sequence[Tensor | None]) -> None:  # noqa: D102
        self._check(run, taps)
        sizes, x, weight, per_unit = _sizes(run), _by_rows(run.x), run.weight.contiguous(), run.per_unit.contiguous()
        given = [_by_rows(tap) for tap in taps if tap is not None]
        strides, tap_strides = _strides(x), _all_strides(given)
        singles, states, tapped = _Places(weight, x, per_unit, run.kept), _Places(*run.states), _Places(*given)

        def one(r: int, scratch: Tensor) -> None:
            weight_r, x_r, *others = singles.of(r)
            self._loops.forward(
                *sizes,
                weight_r,
                x_r,
                *strides,
                *others,
                states.array(r),
                tapped.array(r) if given else None,
                *tap_strides,
                *_Places(scratch).of(0),
            )

        self._on_every_replica(one, len(x), sizes)

    def backward(self, run: Run, grads: Gradients) -> None:  # noqa: D102
        sizes, x, weight, per_unit = _sizes(run), _by_rows(run.x), run.weight.contiguous(), run.per_unit.contiguous()
        direct = [None if grad is None else _by_rows(grad) for grad in grads.direct]
        ends = [None if grad is None else grad.contiguous() for grad in grads.ends]
        threshold = ctypes.c_double(-1.0 if grads.state_threshold is None else grads.state_threshold)
        strides, direct_strides = _strides(x), _all_strides(direct)
        singles, states = _Places(weight, x, per_unit, run.kept), _Places(*run.states)
        reached, reached_last = _Places(*direct), _Places(*ends)
        totals, starts = _Places(*grads.total), _Places(*grads.start)
        filled = _Places(grads.per_unit, grads.weight, grads.x)

        def one(r: int, scratch: Tensor) -> None:
            weight_r, x_r, *others = singles.of(r)
            self._loops.backward(
                *sizes,
                weight_r,
                x_r,
                *strides,
                *others,
                states.array(r),
                reached.array(r),
                *direct_strides,
                reached_last.array(r),
                threshold,
                totals.array(r),
                starts.array(r),
                *filled.of(r),
                *_Places(scratch).of(0),
            )

        self._on_every_replica(one, len(x), sizes)

    def _check(self, run: Run, taps: Sequence[Tensor | None]) -> None:
        """Check what torch would check, and C does not.

        Raises:
            ValueError: If sizes, precisions or devices do not go together.
        """
        (R, T, B, D), H = run.x.shape, run.states[0].shape[-1]
        sizes: list[tuple[Tensor, tuple[int, ...]]] = [
            (run.weight, (R, self._num_blocks * H, self._num_feeding * H + D + 1))
        ]
        sizes += [(run.per_unit, (R, self._num_per_unit, H))] if self._num_per_unit else []
        sizes += [(tap, (R, T, B, H)) for tap in taps if tap is not None]
        for tensor, shape in sizes:
            if (tuple(tensor.shape), tensor.dtype, tensor.device) != (shape, run.x.dtype, run.x.device):
                raise ValueError(
                    f"expected a tensor of the shape {shape}, {run.x.dtype} on {run.x.device}, as the inputs have it; "
                    f"got {tuple(tensor.shape)}, {tensor.dtype} on {tensor.device}"
                )

    def _on_every_replica(
        self, work: Callable[[int, Tensor], None], num_replicas: int, sizes: tuple[ctypes.c_long, ...]
    ) -> None:
        size, threads = self._loops.scratch_size(*sizes), min(torch.get_num_threads(), num_replicas)

        def share(first: int) -> None:
            scratch = torch.empty(size, dtype=torch.float32, device="cpu")
            for r in range(first, num_replicas, threads):
                work(r, scratch)

        if threads == 1:
            share(0)
        else:
            with ThreadPoolExecutor(threads) as pool:  # the loops run without Python's lock
                list(pool.map(share, range(threads)))


def _sizes(run: Run) -> tuple[ctypes.c_long, ...]:
    """Return T, B, H and D."""
    (_, num_timesteps, num_examples, num_inputs), num_hidden = run.x.shape, run.states[0].shape[-1]
    return _longs(num_timesteps, num_examples, num_hidden, num_inputs)


def _by_rows(tensor_RTBF: Tensor) -> Tensor:
    """Return the tensor so that its last dimension is contiguous; one number expanded over all stays one row."""
    if tensor_RTBF.stride(-1) == 1 or tensor_RTBF.shape[-1] == 1:
        return tensor_RTBF
    if tensor_RTBF.numel() and not any(tensor_RTBF.stride()):
        return tensor_RTBF[0, 0, 0].contiguous().expand_as(tensor_RTBF)
    return tensor_RTBF.contiguous()


def _longs(*numbers: int) -> tuple[ctypes.c_long, ...]:
    return tuple(map(ctypes.c_long, numbers))


def _strides(tensor_RTBF: Tensor) -> tuple[ctypes.c_long, ...]:
    """Return how far a timestep and an example are from the next."""
    return _longs(tensor_RTBF.stride(1), tensor_RTBF.stride(2))


def _all_strides(tensors: Sequence[Tensor | None]) -> tuple[Any, Any]:
    """Return the same of several tensors, as arrays."""
    array = ctypes.c_long * len(tensors)
    return tuple(array(*(0 if each is None else each.stride(dim) for each in tensors)) for dim in (1, 2))  # type: ignore[return-value]


class _Places:
    """Where the numbers of each replica begin, of several tensors, (R, ...) each or None; asked once for all."""

    def __init__(self, *tensors: Tensor | None) -> None:
        self._first_and_step = [
            (0, 0) if tensor is None else (tensor.data_ptr(), tensor.stride(0) * tensor.element_size())
            for tensor in tensors
        ]
        self._array = ctypes.c_void_p * len(tensors)

    def of(self, r: int) -> list[ctypes.c_void_p]:
        """Return them one by one."""
        return [ctypes.c_void_p(first + r * step) for first, step in self._first_and_step]

    def array(self, r: int) -> Any:
        """Return them as C's array."""
        return self._array(*[first + r * step for first, step in self._first_and_step])


@functools.cache
def engine(derivation: Derivation, num_fed_by_h: int, num_fed_by_x: int, num_feeding: int) -> Compiled | None:
    """Return the compiled loops of a cell; None where they cannot be had, after one line on what that costs."""
    try:
        library = library_of(source_of(derivation, num_fed_by_h, num_fed_by_x, num_feeding))
        return _loaded(library, derivation, num_feeding)
    except (RuntimeError, OSError) as error:  # no compiler, a step without a form in C, nowhere to keep the library
        _warn_once(str(error))
        return None


def _loaded(library: Path, derivation: Derivation, num_feeding: int) -> Compiled:
    """Return the loops of a library; one that is broken is taken out of the cache, for the next process to make anew.

    Raises:
        CompiledError: If it is broken.
    """
    try:
        return Compiled(library, derivation, num_feeding)
    except (OSError, AttributeError) as error:
        library.unlink(missing_ok=True)
        raise CompiledError(f"{library} is broken and was removed: {error}") from error


@functools.cache
def _warn_once(reason: str) -> None:
    LOG.warning("recurrences run in torch's own operations, several times slower: %s", reason)
