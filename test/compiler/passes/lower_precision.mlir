// RUN: mgec-opt %s -p mge-lower-precision{target=x86-64-v4-bf16} --split-input-file | filecheck %s
// RUN: mgec-opt %s -p mge-lower-precision{target=x86-64-v3} --split-input-file | filecheck %s --check-prefix WIDE

// The weights become narrow when the graph is compiled; what two products read is narrowed once.
// CHECK-LABEL: @products
// WIDE-LABEL: @products
func.func @products(%x: tensor<8x64xf32>) -> (tensor<8x32xf32>, tensor<8x32xf32>) {
  // WIDE-NOT: bf16
  // CHECK: mge.cast %w {dtype = bf16}
  // CHECK: %[[X:.*]] = mge.cast %x {dtype = bf16} : (tensor<8x64xf32>) -> tensor<8x64xbf16>
  // CHECK: mge.matmul %[[X]], %{{.*}} {dtype = f32} : (tensor<8x64xbf16>, tensor<64x32xbf16>) -> tensor<8x32xf32>
  // CHECK: mge.matmul %[[X]], %{{.*}} {transpose_rhs = true, dtype = f32} : (tensor<8x64xbf16>, tensor<32x64xbf16>) -> tensor<8x32xf32>
  %w = mge.weight {key = "w", shape = [64, 32], dtype = f32} : () -> tensor<64x32xf32>
  %v = mge.weight {key = "v", shape = [32, 64], dtype = f32} : () -> tensor<32x64xf32>
  %0 = mge.matmul %x, %w : (tensor<8x64xf32>, tensor<64x32xf32>) -> tensor<8x32xf32>
  %1 = mge.matmul %x, %v {transpose_rhs = true} : (tensor<8x64xf32>, tensor<32x64xf32>) -> tensor<8x32xf32>
  func.return %0, %1 : tensor<8x32xf32>, tensor<8x32xf32>
}

// -----

// Scores of attention, odd depths and trained weights stay.
// CHECK-LABEL: @others
func.func @others(%x: tensor<8x7xf32>, %y: tensor<8x8xf32>, %z: tensor<8x8xf32>) {
  // CHECK-NOT: bf16
  %w = mge.weight {key = "w", shape = [7, 32], dtype = f32} : () -> tensor<7x32xf32>
  %0 = mge.matmul %x, %w : (tensor<8x7xf32>, tensor<7x32xf32>) -> tensor<8x32xf32>
  %1 = mge.matmul %y, %z : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  func.return
}

// -----

// Pointwise convolutions gain; first layers and those for Winograd's algorithm do not.
// CHECK-LABEL: @convolutions
func.func @convolutions(%x: tensor<1x56x56x64xf32>, %i: tensor<1x56x56x3xf32>) {
  // CHECK: mge.conv %{{.*}}, %{{.*}} {channels_last = true, dtype = f32} : (tensor<1x56x56x64xbf16>, tensor<256x64x1x1xbf16>)
  // CHECK: mge.conv %x, %{{.*}} {padding = [1, 1, 1, 1], channels_last = true} : (tensor<1x56x56x64xf32>
  // CHECK: mge.conv %i, %{{.*}} {channels_last = true} : (tensor<1x56x56x3xf32>
  %w = mge.weight {key = "w", shape = [256, 64, 1, 1], dtype = f32} : () -> tensor<256x64x1x1xf32>
  %v = mge.weight {key = "v", shape = [64, 64, 3, 3], dtype = f32} : () -> tensor<64x64x3x3xf32>
  %u = mge.weight {key = "u", shape = [64, 3, 7, 7], dtype = f32} : () -> tensor<64x3x7x7xf32>
  %0 = mge.conv %x, %w {channels_last = true} : (tensor<1x56x56x64xf32>, tensor<256x64x1x1xf32>) -> tensor<1x56x56x256xf32>
  %1 = mge.conv %x, %v {padding = [1, 1, 1, 1], channels_last = true} : (tensor<1x56x56x64xf32>, tensor<64x64x3x3xf32>) -> tensor<1x56x56x64xf32>
  %2 = mge.conv %i, %u {channels_last = true} : (tensor<1x56x56x3xf32>, tensor<64x3x7x7xf32>) -> tensor<1x50x50x64xf32>
  func.return
}
