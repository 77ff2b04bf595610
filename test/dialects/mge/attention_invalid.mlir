// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: attention: query has dtype int32, which is not supported
func.func @f(%q: tensor<1x3x4x4xi32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xi32>, tensor<1x5x2x4xf32>, tensor<1x5x2x6xf32>) -> tensor<1x3x4x6xi32>
  func.return
}

// -----

// CHECK: attention: query is float32 but key is float64
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf64>, %v: tensor<1x5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf64>, tensor<1x5x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: query is float32 but bias is float16
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x5x2x6xf32>, %b: tensor<3x5xf16>) {
  %r = mge.attention %q, %k, %v, bias = %b {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<1x5x2x6xf32>, tensor<3x5xf16>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: value has rank 3 but needs rank 4 (N, positions, heads, depth)
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<5x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: key has no positions, so that there is nothing to attend to
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x0x2x4xf32>, %v: tensor<1x0x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x0x2x4xf32>, tensor<1x0x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: query has 1 examples but key has 2
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<2x5x2x4xf32>, %v: tensor<1x5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<2x5x2x4xf32>, tensor<1x5x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: key has 1 examples but value has 2
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<2x5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<2x5x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: key has 5 positions but value has 4
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x4x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<1x4x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: key has 2 heads but value has 4
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x5x4x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<1x5x4x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: query has 4 elements per head but key has 8
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x8xf32>, %v: tensor<1x5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x8xf32>, tensor<1x5x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: query has 4 heads, which the 3 heads of key do not divide
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x3x4xf32>, %v: tensor<1x5x3x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x3x4xf32>, tensor<1x5x3x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: scale is inf, and must be finite
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x5x2x6xf32>) {
  %r = mge.attention %q, %k, %v {scale = "inf"} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<1x5x2x6xf32>) -> tensor<1x3x4x6xf32>
  func.return
}

// -----

// CHECK: attention: bias has shape [5, 3], which does not broadcast to the scores' [1, 4, 3, 5]
func.func @f(%q: tensor<1x3x4x4xf32>, %k: tensor<1x5x2x4xf32>, %v: tensor<1x5x2x6xf32>, %b: tensor<5x3xf32>) {
  %r = mge.attention %q, %k, %v, bias = %b {scale = 0.5} : (tensor<1x3x4x4xf32>, tensor<1x5x2x4xf32>, tensor<1x5x2x6xf32>, tensor<5x3xf32>) -> tensor<1x3x4x6xf32>
  func.return
}
