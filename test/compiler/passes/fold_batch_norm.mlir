// RUN: mgec-opt %s -p mge-fold-batch-norm --split-input-file --print-debuginfo | filecheck %s
// RUN: mgec-opt %s -p mge-fold-batch-norm,mge-fold-constants,mge-canonicalize,mge-dce --split-input-file | filecheck %s --check-prefix FOLDED

// The constants here make s = g / sqrt(variance + eps) = [2, 4].
// CHECK-LABEL: @conv
// FOLDED-LABEL: @conv
func.func @conv(%x: tensor<1x1x3x3xf32>) -> tensor<1x2x3x3xf32> {
  // FOLDED-NEXT: %[[W:.*]] = mge.constant {value = dense<{{\[\[\[\[}}2.000000e+00]]], {{\[\[\[}}1.200000e+01]]]]>
  // FOLDED-NEXT: %[[R:.*]] = mge.conv %x, %[[W]]
  // FOLDED-NEXT: %[[B:.*]] = mge.constant {value = dense<{{\[\[\[}}-1.500000e+00]], {{\[\[}}-7.000000e+00]]]>
  // FOLDED-NEXT: %[[Y:.*]] = mge.add %[[R]], %[[B]]
  // FOLDED-NEXT: func.return %[[Y]]
  %w = mge.constant {value = dense<[[[[1.0]]], [[[3.0]]]]> : tensor<2x1x1x1xf32>} : () -> tensor<2x1x1x1xf32>
  %g = mge.constant {value = dense<[2.0, 4.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %b = mge.constant {value = dense<[0.5, 1.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %m = mge.constant {value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %v = mge.constant {value = dense<[0.5, 0.5]> : tensor<2xf32>} : () -> tensor<2xf32>
  // CHECK-NOT: mge.batch_norm_inference
  // CHECK: mge.rsqrt {{.*}} loc("net.py":5:0)
  // CHECK: %[[C:.*]] = mge.conv %x, %{{.*}} loc("net.py":4:0)
  // CHECK: mge.add %[[C]], %{{.*}} : (tensor<1x2x3x3xf32>, tensor<2x1x1xf32>) -> tensor<1x2x3x3xf32> loc("net.py":5:0)
  %0 = mge.conv %x, %w : (tensor<1x1x3x3xf32>, tensor<2x1x1x1xf32>) -> tensor<1x2x3x3xf32> loc("net.py":4:0)
  %1 = mge.batch_norm_inference %0, %g, %b, %m, %v {eps = 0.5} : (tensor<1x2x3x3xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x3x3xf32> loc("net.py":5:0)
  func.return %1 : tensor<1x2x3x3xf32>
}

// -----

// With a bias between them, weights beside the module, and 16-bit floats folded in float32.
// CHECK-LABEL: @dense
func.func @dense(%x: tensor<4x3xf16>) -> tensor<4x2xf16> {
  %w = mge.weight {key = "w", shape = [2, 3], dtype = f16} : () -> tensor<2x3xf16>
  %c = mge.weight {key = "c", shape = [2], dtype = f16} : () -> tensor<2xf16>
  %g = mge.weight {key = "g", shape = [2], dtype = f16} : () -> tensor<2xf16>
  %b = mge.weight {key = "b", shape = [2], dtype = f16} : () -> tensor<2xf16>
  %m = mge.weight {key = "m", shape = [2], dtype = f32} : () -> tensor<2xf32>
  %v = mge.weight {key = "v", shape = [2], dtype = f32} : () -> tensor<2xf32>
  // CHECK: mge.cast %c {dtype = f32}
  // CHECK: %[[S:.*]] = mge.mul %{{.*}}, %{{.*}} : (tensor<2x3xf32>, tensor<2x1xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %[[W:.*]] = mge.cast %[[S]] {dtype = f16}
  // CHECK-NEXT: %[[P:.*]] = mge.matmul %x, %[[W]] {transpose_rhs = true}
  // CHECK: mge.add %[[P]], %{{.*}} : (tensor<4x2xf16>, tensor<2xf16>) -> tensor<4x2xf16>
  // CHECK-NEXT: func.return
  %0 = mge.matmul %x, %w {transpose_rhs = true} : (tensor<4x3xf16>, tensor<2x3xf16>) -> tensor<4x2xf16>
  %1 = mge.add %c, %0 : (tensor<2xf16>, tensor<4x2xf16>) -> tensor<4x2xf16>
  %2 = mge.batch_norm_inference %1, %g, %b, %m, %v : (tensor<4x2xf16>, tensor<2xf16>, tensor<2xf16>, tensor<2xf32>, tensor<2xf32>) -> tensor<4x2xf16>
  func.return %2 : tensor<4x2xf16>
}

// -----

// The product is returned as well, so it stays.
// CHECK-LABEL: @used_twice
func.func @used_twice(%x: tensor<4x3xf32>) -> (tensor<4x2xf32>, tensor<4x2xf32>) {
  %w = mge.weight {key = "w", shape = [3, 2], dtype = f32} : () -> tensor<3x2xf32>
  %v = mge.weight {key = "v", shape = [2], dtype = f32} : () -> tensor<2xf32>
  %0 = mge.matmul %x, %w : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  // CHECK: mge.batch_norm_inference
  %1 = mge.batch_norm_inference %0, %v, %v, %v, %v : (tensor<4x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  func.return %0, %1 : tensor<4x2xf32>, tensor<4x2xf32>
}

// -----

// Weights that are trained, and statistics that are computed, stay.
// CHECK-LABEL: @not_constant
func.func @not_constant(%x: tensor<4x3xf32>, %w: tensor<3x2xf32>, %v: tensor<2xf32>) -> (tensor<4x2xf32>, tensor<4x2xf32>) {
  %c = mge.weight {key = "w", shape = [3, 2], dtype = f32} : () -> tensor<3x2xf32>
  %s = mge.weight {key = "v", shape = [2], dtype = f32} : () -> tensor<2xf32>
  // CHECK-COUNT-2: mge.batch_norm_inference
  %0 = mge.matmul %x, %w : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %1 = mge.batch_norm_inference %0, %s, %s, %s, %s : (tensor<4x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  %2 = mge.matmul %x, %c : (tensor<4x3xf32>, tensor<3x2xf32>) -> tensor<4x2xf32>
  %3 = mge.batch_norm_inference %2, %s, %s, %v, %s : (tensor<4x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<4x2xf32>
  func.return %1, %3 : tensor<4x2xf32>, tensor<4x2xf32>
}

// -----

// With the channels last, and the bias and batch norm along them.
// CHECK-LABEL: @channels_last
func.func @channels_last(%x: tensor<1x4x4x3xf32>) -> tensor<1x2x2x2xf32> {
  %w = mge.weight {key = "w", shape = [2, 3, 3, 3], dtype = f32} : () -> tensor<2x3x3x3xf32>
  %v = mge.weight {key = "v", shape = [2], dtype = f32} : () -> tensor<2xf32>
  // CHECK: mge.mul %w, %{{.*}} : (tensor<2x3x3x3xf32>, tensor<2x1x1x1xf32>) -> tensor<2x3x3x3xf32>
  // CHECK: %[[C:.*]] = mge.conv %x, %{{.*}} {channels_last = true}
  // CHECK: mge.add %[[C]], %{{.*}} : (tensor<1x2x2x2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  // CHECK-NEXT: func.return
  %0 = mge.conv %x, %w {channels_last = true} : (tensor<1x4x4x3xf32>, tensor<2x3x3x3xf32>) -> tensor<1x2x2x2xf32>
  %1 = mge.add %0, %v : (tensor<1x2x2x2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  %2 = mge.batch_norm_inference %1, %v, %v, %v, %v {channels_last = true} : (tensor<1x2x2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  func.return %2 : tensor<1x2x2x2xf32>
}

// -----

// Rows are not channels, even if there are as many.
// CHECK-LABEL: @along_rows
func.func @along_rows(%x: tensor<1x4x4x3xf32>) -> (tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>) {
  %w = mge.weight {key = "w", shape = [2, 3, 3, 3], dtype = f32} : () -> tensor<2x3x3x3xf32>
  %v = mge.weight {key = "v", shape = [2], dtype = f32} : () -> tensor<2xf32>
  %b = mge.weight {key = "b", shape = [2, 1, 1], dtype = f32} : () -> tensor<2x1x1xf32>
  // CHECK-COUNT-2: mge.batch_norm_inference
  %0 = mge.conv %x, %w {channels_last = true} : (tensor<1x4x4x3xf32>, tensor<2x3x3x3xf32>) -> tensor<1x2x2x2xf32>
  %1 = mge.batch_norm_inference %0, %v, %v, %v, %v : (tensor<1x2x2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  %2 = mge.conv %x, %w {channels_last = true} : (tensor<1x4x4x3xf32>, tensor<2x3x3x3xf32>) -> tensor<1x2x2x2xf32>
  %3 = mge.add %2, %b : (tensor<1x2x2x2xf32>, tensor<2x1x1xf32>) -> tensor<1x2x2x2xf32>
  %4 = mge.batch_norm_inference %3, %v, %v, %v, %v {channels_last = true} : (tensor<1x2x2x2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>, tensor<2xf32>) -> tensor<1x2x2x2xf32>
  func.return %1, %4 : tensor<1x2x2x2xf32>, tensor<1x2x2x2xf32>
}
