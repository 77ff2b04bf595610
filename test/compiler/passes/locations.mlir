// RUN: mgec-opt %s -p mge-canonicalize --print-debuginfo | filecheck %s
// RUN: mgec-opt %s -p mge-fold-constants --print-debuginfo | filecheck %s --check-prefix FOLD
// RUN: mgec-opt %s -p mge-cse --print-debuginfo | filecheck %s --check-prefix CSE

// What a pass makes has the line of what it replaces.
func.func @f(%x: tensor<2x3xf32>) -> (tensor<6xf32>, tensor<2xi32>, tensor<2x3xf32>, tensor<2x3xf32>) {
  %0 = mge.reshape %x {shape = [3, 2]} : (tensor<2x3xf32>) -> tensor<3x2xf32> loc("net.py":1:0)
  // CHECK: mge.reshape %x {shape = [6]} : (tensor<2x3xf32>) -> tensor<6xf32> loc("net.py":2:0)
  %1 = mge.reshape %0 {shape = [6]} : (tensor<3x2xf32>) -> tensor<6xf32> loc("net.py":2:0)
  %2 = mge.constant {value = dense<[1, 2]> : tensor<2xi32>} : () -> tensor<2xi32> loc("net.py":3:0)
  // FOLD: mge.constant {value = dense<[-1, -2]> : tensor<2xi32>} : () -> tensor<2xi32> loc("net.py":4:0)
  %3 = mge.neg %2 : (tensor<2xi32>) -> tensor<2xi32> loc("net.py":4:0)
  // CSE: mge.exp %x : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("net.py":5:0)
  // CSE-NOT: mge.exp
  %4 = mge.exp %x : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("net.py":5:0)
  %5 = mge.exp %x : (tensor<2x3xf32>) -> tensor<2x3xf32> loc("net.py":6:0)
  func.return %1, %3, %4, %5 : tensor<6xf32>, tensor<2xi32>, tensor<2x3xf32>, tensor<2x3xf32>
}
