// RUN: mgec-opt %s | filecheck %s
// RUN: mgec-opt %s --print-op-generic | mgec-opt | filecheck %s

// One of each shape of the assembly: unary, binary with broadcasting, comparison, test, select, cast.
// CHECK-LABEL: @elementwise
func.func @elementwise(%x: tensor<2x3xf32>, %v: tensor<3xf32>, %n: tensor<2x3xui8>, %c: tensor<2x1xi1>) {
  // CHECK-NEXT: %{{.*}} = mge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %0 = mge.neg %x : (tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %{{.*}} = mge.add %x, %v : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %1 = mge.add %x, %v : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %{{.*}} = mge.shift_left %n, %n : (tensor<2x3xui8>, tensor<2x3xui8>) -> tensor<2x3xui8>
  %2 = mge.shift_left %n, %n : (tensor<2x3xui8>, tensor<2x3xui8>) -> tensor<2x3xui8>
  // CHECK-NEXT: %{{.*}} = mge.less %x, %v : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xi1>
  %3 = mge.less %x, %v : (tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xi1>
  // CHECK-NEXT: %{{.*}} = mge.is_nan %v : (tensor<3xf32>) -> tensor<3xi1>
  %4 = mge.is_nan %v : (tensor<3xf32>) -> tensor<3xi1>
  // CHECK-NEXT: %{{.*}} = mge.select %c, %x, %v : (tensor<2x1xi1>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  %5 = mge.select %c, %x, %v : (tensor<2x1xi1>, tensor<2x3xf32>, tensor<3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %{{.*}} = mge.cast %x {dtype = bf16} : (tensor<2x3xf32>) -> tensor<2x3xbf16>
  %6 = mge.cast %x {dtype = bf16} : (tensor<2x3xf32>) -> tensor<2x3xbf16>
  // CHECK-NEXT: %{{.*}} = mge.not %c attributes {note = "kept"} : (tensor<2x1xi1>) -> tensor<2x1xi1>
  %7 = mge.not %c attributes {note = "kept"} : (tensor<2x1xi1>) -> tensor<2x1xi1>
  func.return
}

// Sizes of run time are not checked before run time.
// CHECK-LABEL: @dynamic
func.func @dynamic(%x: tensor<?x3xf32>, %y: tensor<?x1xf32>) -> tensor<?x3xf32> {
  // CHECK-NEXT: mge.mul %x, %y : (tensor<?x3xf32>, tensor<?x1xf32>) -> tensor<?x3xf32>
  %0 = mge.mul %x, %y : (tensor<?x3xf32>, tensor<?x1xf32>) -> tensor<?x3xf32>
  func.return %0 : tensor<?x3xf32>
}

// CHECK-LABEL: @locations
// CHECK-NEXT: mge.exp %x : (tensor<f64>) -> tensor<f64>
func.func @locations(%x: tensor<f64>) -> tensor<f64> {
  %0 = mge.exp %x : (tensor<f64>) -> tensor<f64> loc("net.py":3:7)
  func.return %0 : tensor<f64>
}
