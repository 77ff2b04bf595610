// RUN: mgec-opt %s | filecheck %s
// RUN: mgec-opt %s --print-op-generic | mgec-opt | filecheck %s

// CHECK-LABEL: @dense
func.func @dense(%x: tensor<2x3xf32>, %w: tensor<3x4xf32>, %b: tensor<4xf32>) -> tensor<2x4xf32> {
  // CHECK-NEXT: %[[K:.*]] = mge.kernel "dense" template "contraction" (%p = %x : tensor<2x3xf32>, %q = %w : tensor<3x4xf32>) -> tensor<2x4xf32> {
  // CHECK-NEXT:   %[[M:.*]] = mge.matmul %p, %q
  // CHECK-NEXT:   mge.yield %[[M]] : tensor<2x4xf32>
  // CHECK-NEXT: }
  %0 = mge.kernel "dense" template "contraction" (%p = %x : tensor<2x3xf32>, %q = %w : tensor<3x4xf32>) -> tensor<2x4xf32> {
    %1 = mge.matmul %p, %q : (tensor<2x3xf32>, tensor<3x4xf32>) -> tensor<2x4xf32>
    mge.yield %1 : tensor<2x4xf32>
  }
  // CHECK-NEXT: %[[L:.*]], %{{.*}} = mge.kernel "bias" in_place [0 = 1, 1 = 0] (%p = %b : tensor<4xf32>, %q = %[[K]] : tensor<2x4xf32>) -> (tensor<2x4xf32>, tensor<4xf32>) attributes {offset = 64 : i64} {
  // CHECK-NEXT:   %[[A:.*]] = mge.add %q, %p
  // CHECK-NEXT:   mge.yield %[[A]], %p : tensor<2x4xf32>, tensor<4xf32>
  %2, %3 = mge.kernel "bias" in_place [1 = 0, 0 = 1] (%p = %b : tensor<4xf32>, %q = %0 : tensor<2x4xf32>) -> (tensor<2x4xf32>, tensor<4xf32>) attributes {offset = 64 : i64} {
    %4 = mge.add %q, %p : (tensor<2x4xf32>, tensor<4xf32>) -> tensor<2x4xf32>
    mge.yield %4, %p : tensor<2x4xf32>, tensor<4xf32>
  }
  // CHECK: mge.kernel "nothing" () -> () {
  // CHECK-NEXT: mge.yield
  mge.kernel "nothing" () -> () {
    mge.yield
  }
  // CHECK: func.return %[[L]]
  func.return %2 : tensor<2x4xf32>
}
