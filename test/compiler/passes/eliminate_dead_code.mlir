// RUN: mgec-opt %s -p mge-dce --split-input-file | filecheck %s

// CHECK-LABEL: @unused
func.func @unused(%x: tensor<3xf32>) -> tensor<3xf32> {
  // CHECK-NEXT: "test.op"
  %0 = "test.op"() : () -> tensor<3xf32>
  %1 = mge.exp %x : (tensor<3xf32>) -> tensor<3xf32>
  %2 = mge.add %1, %0 : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  // CHECK-NEXT: %[[N:.*]] = mge.neg %x
  %3 = mge.neg %x : (tensor<3xf32>) -> tensor<3xf32>
  // CHECK-NEXT: func.return %[[N]]
  func.return %3 : tensor<3xf32>
}

// -----

// What only a dead result needed goes with it: ops, operands, the first pair of in_place.
// CHECK-LABEL: @kernels
func.func @kernels(%x: tensor<3xf32>, %y: tensor<3xf32>) -> tensor<3xf32> {
  // CHECK-NEXT: %[[K:.*]] = mge.kernel "both" in_place [0 = 0] (%b = %y : tensor<3xf32>) -> tensor<3xf32> {
  // CHECK-NEXT:   %[[N:.*]] = mge.neg %b
  // CHECK-NEXT:   mge.yield %[[N]] :
  // CHECK-NEXT: }
  %0, %1 = mge.kernel "both" in_place [0 = 0, 1 = 1] (%a = %x : tensor<3xf32>, %b = %y : tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>) {
    %2 = mge.exp %a : (tensor<3xf32>) -> tensor<3xf32>
    %3 = mge.neg %b : (tensor<3xf32>) -> tensor<3xf32>
    mge.yield %2, %3 : tensor<3xf32>, tensor<3xf32>
  }
  %4 = mge.kernel "dead" (%a = %0 : tensor<3xf32>) -> tensor<3xf32> {
    mge.yield %a : tensor<3xf32>
  }
  // CHECK-NEXT: func.return %[[K]]
  func.return %1 : tensor<3xf32>
}
