// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @matmul
func.func @matmul(%lhs: tensor<2x3xf32>, %rhs: tensor<3x4xf32>) {
  // CHECK: mge.matmul %{{.*}}, %{{.*}} : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  %out = mge.matmul %lhs, %rhs : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
  func.return
}

// CHECK-LABEL: @transposed_lhs
func.func @transposed_lhs(%lhs: tensor<5x3x2xf64>, %rhs: tensor<3x4xf64>) {
  // CHECK: mge.matmul %{{.*}}, %{{.*}} {transpose_lhs = true} : (tensor<5x3x2xf64>, tensor<3x4xf64>) -> tensor<5x2x4xf64>
  %out = mge.matmul %lhs, %rhs {transpose_lhs = true} : (tensor<5x3x2xf64>, tensor<3x4xf64>) -> tensor<5x2x4xf64>
  func.return
}

// CHECK-LABEL: @batched
func.func @batched(%lhs: tensor<2x1x3x8xbf16>, %rhs: tensor<5x4x8xbf16>) {
  // CHECK: mge.matmul %{{.*}}, %{{.*}} {transpose_rhs = true} : (tensor<2x1x3x8xbf16>, tensor<5x4x8xbf16>) -> tensor<2x5x3x4xbf16>
  %out = mge.matmul %lhs, %rhs {transpose_rhs = true} : (tensor<2x1x3x8xbf16>, tensor<5x4x8xbf16>) -> tensor<2x5x3x4xbf16>
  func.return
}

// CHECK-LABEL: @integers
func.func @integers(%lhs: tensor<8x3xi8>, %rhs: tensor<4x8xi8>) {
  // CHECK: mge.matmul %{{.*}}, %{{.*}} {transpose_lhs = true, transpose_rhs = true} : (tensor<8x3xi8>, tensor<4x8xi8>) -> tensor<3x4xi8>
  %out = mge.matmul %lhs, %rhs {transpose_lhs = true, transpose_rhs = true} : (tensor<8x3xi8>, tensor<4x8xi8>) -> tensor<3x4xi8>
  func.return
}
