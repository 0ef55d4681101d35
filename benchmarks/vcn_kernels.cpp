// Batch norm of a training step, with what follows it: y = relu(norm(x) + added), ReLU and sum as wanted.
//
// Channels last, so that memory is rows of C channels. torch's own kernels are slow for the few channels of small
// networks and pass over memory more often. Rows are joined to periods of 64 numbers or more, over which compilers
// vectorise; sums are float within a piece of memory and double beyond.

#include <torch/extension.h>

#include <algorithm>
#include <cmath>
#include <vector>

using torch::Tensor;

static int64_t period(int64_t channels) { return channels * ((63 + channels) / channels); }

// Repeats C numbers up to the period.
static std::vector<float> tiled(const std::vector<double>& values, int64_t length) {
  std::vector<float> out(length);
  for (int64_t i = 0; i < length; i++) out[i] = static_cast<float>(values[i % values.size()]);
  return out;
}

// Calls piece(start, count) for whole periods, `block` of them at most a time, then for what is left.
template <typename Piece>
static void pieces(int64_t size, int64_t length, int64_t block, Piece piece) {
  for (int64_t start = 0; start < size; start += block * length) piece(start, std::min(block * length, size - start));
}

static void fold(std::vector<float>& sums, std::vector<double>& totals) {
  for (size_t i = 0; i < sums.size(); i++) totals[i % totals.size()] += sums[i];
  std::fill(sums.begin(), sums.end(), 0.0f);
}

// Output, mean, and one over the deviation; updates the running statistics.
std::vector<Tensor> forward(const Tensor& x, const Tensor& added, const Tensor& weight, const Tensor& bias,
                            Tensor running_mean, Tensor running_var, bool relu, double momentum, double epsilon) {
  const int64_t channels = x.size(1), size = x.numel(), length = period(channels);
  const double rows = static_cast<double>(size / channels);
  const float* in = x.data_ptr<float>();
  const float* more = added.defined() && added.numel() ? added.data_ptr<float>() : nullptr;
  std::vector<float> sum(length), square(length);
  std::vector<double> total(channels), squares(channels);
  pieces(size, length, 64, [&](int64_t start, int64_t count) {
    for (int64_t from = start; from < start + count; from += length) {
      const float* row = in + from;
      const int64_t here = std::min(length, start + count - from);
      float *s = sum.data(), *q = square.data();
#pragma GCC ivdep
      for (int64_t i = 0; i < here; i++) {
        s[i] += row[i];
        q[i] += row[i] * row[i];
      }
    }
    fold(sum, total);
    fold(square, squares);
  });
  Tensor mean = torch::empty({channels}, torch::kDouble), inverse = torch::empty({channels}, torch::kDouble);
  std::vector<double> scale(channels), shift(channels);
  for (int64_t c = 0; c < channels; c++) {
    const double m = total[c] / rows, variance = std::max(0.0, squares[c] / rows - m * m);
    const double one_over = 1 / std::sqrt(variance + epsilon);
    mean.data_ptr<double>()[c] = m;
    inverse.data_ptr<double>()[c] = one_over;
    scale[c] = weight.data_ptr<float>()[c] * one_over;
    shift[c] = bias.data_ptr<float>()[c] - m * scale[c];
    float *rm = running_mean.data_ptr<float>() + c, *rv = running_var.data_ptr<float>() + c;
    *rm += static_cast<float>(momentum * (m - *rm));
    *rv += static_cast<float>(momentum * (variance * rows / (rows - 1) - *rv));
  }
  Tensor y = torch::empty_like(x);
  float* out = y.data_ptr<float>();
  const std::vector<float> a = tiled(scale, length), b = tiled(shift, length);
  const float least = relu ? 0.0f : -INFINITY;
  pieces(size, length, 1, [&](int64_t start, int64_t count) {
    const float *row = in + start, *sc = a.data(), *sh = b.data();
    float* to = out + start;
    if (more != nullptr) {
      const float* plus = more + start;
#pragma GCC ivdep
      for (int64_t i = 0; i < count; i++) to[i] = std::max(least, row[i] * sc[i] + sh[i] + plus[i]);
    } else {
#pragma GCC ivdep
      for (int64_t i = 0; i < count; i++) to[i] = std::max(least, row[i] * sc[i] + sh[i]);
    }
  });
  return {y, mean, inverse};
}

// Gradients of x, of what was added (empty where nothing was), of weight and bias.
std::vector<Tensor> backward(const Tensor& gradient, const Tensor& x, const Tensor& y, const Tensor& weight,
                             const Tensor& mean, const Tensor& inverse, bool relu, bool added) {
  const int64_t channels = x.size(1), size = x.numel(), length = period(channels);
  const double rows = static_cast<double>(size / channels);
  const float *g = gradient.data_ptr<float>(), *in = x.data_ptr<float>(), *out = y.data_ptr<float>();
  // Behind the ReLU: kept where it is asked for, and written over the gradient of x else.
  Tensor dx = torch::empty_like(x);
  Tensor behind = !relu ? gradient : added ? torch::empty_like(x) : dx;
  const float* d = behind.data_ptr<float>();
  float* masked = relu ? behind.data_ptr<float>() : nullptr;
  std::vector<float> sum(length), product(length);
  std::vector<double> total(channels), products(channels);
  pieces(size, length, 64, [&](int64_t start, int64_t count) {
    for (int64_t from = start; from < start + count; from += length) {
      const int64_t here = std::min(length, start + count - from);
      const float *grad = g + from, *row = in + from, *made = out + from;
      float *s = sum.data(), *p = product.data();
      if (relu) {
        float* to = masked + from;
#pragma GCC ivdep
        for (int64_t i = 0; i < here; i++) {
          const float value = made[i] > 0 ? grad[i] : 0.0f;
          to[i] = value;
          s[i] += value;
          p[i] += value * row[i];
        }
      } else {
#pragma GCC ivdep
        for (int64_t i = 0; i < here; i++) {
          s[i] += grad[i];
          p[i] += grad[i] * row[i];
        }
      }
    }
    fold(sum, total);
    fold(product, products);
  });
  Tensor dweight = torch::empty_like(weight), dbias = torch::empty_like(weight);
  std::vector<double> of_gradient(channels), of_input(channels), constant(channels);
  for (int64_t c = 0; c < channels; c++) {
    const double m = mean.data_ptr<double>()[c], one_over = inverse.data_ptr<double>()[c];
    const double normed = one_over * (products[c] - m * total[c]);  // the sum of gradient times normalised input
    dweight.data_ptr<float>()[c] = static_cast<float>(normed);
    dbias.data_ptr<float>()[c] = static_cast<float>(total[c]);
    of_gradient[c] = weight.data_ptr<float>()[c] * one_over;
    of_input[c] = -of_gradient[c] * one_over * normed / rows;
    constant[c] = -of_gradient[c] * total[c] / rows - of_input[c] * m;
  }
  const std::vector<float> a = tiled(of_gradient, length), b = tiled(of_input, length), c = tiled(constant, length);
  float* to_all = dx.data_ptr<float>();
  pieces(size, length, 1, [&](int64_t start, int64_t count) {
    const float *grad = d + start, *row = in + start, *pa = a.data(), *pb = b.data(), *pc = c.data();
    float* to = to_all + start;
#pragma GCC ivdep
    for (int64_t i = 0; i < count; i++) to[i] = grad[i] * pa[i] + row[i] * pb[i] + pc[i];
  });
  return {dx, added ? behind : Tensor(), dweight, dbias};
}

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("forward", &forward);
  m.def("backward", &backward);
}
