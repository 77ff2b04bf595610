// RUN: mgec-opt %s -p mge-form-kernels --split-input-file | filecheck %s
// RUN: mgec-opt %s -p 'mge-form-kernels{fuse=false}' --split-input-file | filecheck %s --check-prefix PLAIN
// RUN: mgec-opt %s -p mge-form-kernels --split-input-file --print-debuginfo | filecheck %s --check-prefix LOC

// A contraction takes in what follows it; the kernel has the contraction's line.
// CHECK-LABEL: @dense
// LOC-LABEL: @dense
// PLAIN-LABEL: @dense
func.func @dense(%x: tensor<8x4xf32>, %w: tensor<4x16xf32>, %b: tensor<16xf32>) -> tensor<8x16xf32> {
  // CHECK-NEXT: %[[K:.*]] = mge.kernel "matmul_add_relu" (%[[A:.*]] = %x : tensor<8x4xf32>, %[[B:.*]] = %w : tensor<4x16xf32>, %[[C:.*]] = %b : tensor<16xf32>) -> tensor<8x16xf32> {
  // CHECK-NEXT:   %[[P:.*]] = mge.matmul %[[A]], %[[B]]
  // CHECK-NEXT:   %[[S:.*]] = mge.add %[[P]], %[[C]]
  // CHECK-NEXT:   %[[R:.*]] = mge.relu %[[S]]
  // CHECK-NEXT:   mge.yield %[[R]] : tensor<8x16xf32>
  // CHECK-NEXT: }
  // CHECK-NEXT: func.return %[[K]]
  // LOC: mge.kernel "matmul_add_relu"
  // LOC:   mge.add {{.*}} loc("net.py":2:0)
  // LOC: } loc("net.py":1:0)
  // PLAIN-NEXT: mge.kernel "matmul" (
  // PLAIN: mge.kernel "add" (
  // PLAIN: mge.kernel "relu" (
  %0 = mge.matmul %x, %w : (tensor<8x4xf32>, tensor<4x16xf32>) -> tensor<8x16xf32> loc("net.py":1:0)
  %1 = mge.add %0, %b : (tensor<8x16xf32>, tensor<16xf32>) -> tensor<8x16xf32> loc("net.py":2:0)
  %2 = mge.relu %1 : (tensor<8x16xf32>) -> tensor<8x16xf32> loc("net.py":3:0)
  func.return %2 : tensor<8x16xf32> loc("net.py":4:0)
}

// -----

// A reduction takes in what feeds only it and what follows it; the 0-d constant moves inside.
// CHECK-LABEL: @reduction
func.func @reduction(%x: tensor<8x4xf32>, %y: tensor<8xf32>) -> tensor<8xf32> {
  // CHECK-NEXT: %[[K:.*]] = mge.kernel "mul_exp_reduce_sum_add" (%[[A:.*]] = %x : tensor<8x4xf32>, %[[B:.*]] = %y : tensor<8xf32>) -> tensor<8xf32> {
  // CHECK-NEXT:   %[[C:.*]] = mge.constant
  // CHECK-NEXT:   mge.mul %[[A]], %[[C]]
  // CHECK-NEXT:   mge.exp
  // CHECK-NEXT:   mge.reduce_sum
  // CHECK-NEXT:   mge.add {{.*}}, %[[B]]
  // CHECK-NEXT:   mge.yield
  // CHECK-NEXT: }
  // CHECK-NEXT: func.return %[[K]]
  %c = mge.constant {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.mul %x, %c : (tensor<8x4xf32>, tensor<f32>) -> tensor<8x4xf32>
  %1 = mge.exp %0 : (tensor<8x4xf32>) -> tensor<8x4xf32>
  %2 = mge.reduce_sum %1 {axes = [1]} : (tensor<8x4xf32>) -> tensor<8xf32>
  %3 = mge.add %2, %y : (tensor<8xf32>, tensor<8xf32>) -> tensor<8xf32>
  func.return %3 : tensor<8xf32>
}

// -----

// What two reductions need is computed once, in a kernel of its own.
// CHECK-LABEL: @shared
func.func @shared(%x: tensor<8x4xf32>) -> (tensor<8xf32>, tensor<4xf32>) {
  // CHECK-NEXT: %[[E:.*]] = mge.kernel "exp" (
  // CHECK: mge.kernel "reduce_sum" (%{{.*}} = %[[E]] : tensor<8x4xf32>) -> tensor<8xf32>
  // CHECK-NOT: mge.exp
  // CHECK: mge.kernel "reduce_sum" (%{{.*}} = %[[E]] : tensor<8x4xf32>) -> tensor<4xf32>
  // CHECK-NOT: mge.exp
  %0 = mge.exp %x : (tensor<8x4xf32>) -> tensor<8x4xf32>
  %1 = mge.reduce_sum %0 {axes = [1]} : (tensor<8x4xf32>) -> tensor<8xf32>
  %2 = mge.reduce_sum %0 {axes = [0]} : (tensor<8x4xf32>) -> tensor<4xf32>
  func.return %1, %2 : tensor<8xf32>, tensor<4xf32>
}

// -----

// What is used inside the kernel and outside it is a second output.
// CHECK-LABEL: @two_outputs
func.func @two_outputs(%x: tensor<8x4xf32>, %w: tensor<4x16xf32>) -> (tensor<8x16xf32>, tensor<16x8xf32>) {
  // CHECK-NEXT: %[[M:.*]], %[[R:.*]] = mge.kernel "matmul_relu" (
  // CHECK: mge.kernel "transpose" (%{{.*}} = %[[M]] :
  // CHECK: func.return %[[R]], %
  %0 = mge.matmul %x, %w : (tensor<8x4xf32>, tensor<4x16xf32>) -> tensor<8x16xf32>
  %1 = mge.relu %0 : (tensor<8x16xf32>) -> tensor<8x16xf32>
  %2 = mge.transpose %0 {perm = [1, 0]} : (tensor<8x16xf32>) -> tensor<16x8xf32>
  func.return %1, %2 : tensor<8x16xf32>, tensor<16x8xf32>
}

// -----

// Elementwise chains that only meet become one kernel; a vector that is broadcast into it does not.
// CHECK-LABEL: @chains
func.func @chains(%x: tensor<8x4xf32>, %y: tensor<8x4xf32>, %v: tensor<4xf32>) -> tensor<8x4xf32> {
  // CHECK-NEXT: %[[V:.*]] = mge.kernel "exp" (%{{.*}} = %v : tensor<4xf32>) -> tensor<4xf32>
  // CHECK: mge.kernel "sin_cos_mul_add" (%{{.*}} = %x : tensor<8x4xf32>, %{{.*}} = %y : tensor<8x4xf32>, %{{.*}} = %[[V]] : tensor<4xf32>) -> tensor<8x4xf32>
  // CHECK-NOT: mge.kernel
  %0 = mge.sin %x : (tensor<8x4xf32>) -> tensor<8x4xf32>
  %1 = mge.exp %v : (tensor<4xf32>) -> tensor<4xf32>
  %2 = mge.cos %y : (tensor<8x4xf32>) -> tensor<8x4xf32>
  %3 = mge.mul %0, %2 : (tensor<8x4xf32>, tensor<8x4xf32>) -> tensor<8x4xf32>
  %4 = mge.add %3, %1 : (tensor<8x4xf32>, tensor<4xf32>) -> tensor<8x4xf32>
  func.return %4 : tensor<8x4xf32>
}

// -----

// Two contractions never share a kernel; what joins them goes with the later one.
// CHECK-LABEL: @residual
func.func @residual(%x: tensor<4x4xf32>, %w: tensor<4x4xf32>) -> tensor<4x4xf32> {
  // CHECK-NEXT: %[[A:.*]] = mge.kernel "matmul" (
  // CHECK: mge.kernel "matmul_add" (%{{.*}} = %[[A]] : tensor<4x4xf32>, %{{.*}} = %w : tensor<4x4xf32>) -> tensor<4x4xf32>
  %0 = mge.matmul %x, %w : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %1 = mge.matmul %0, %w : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  %2 = mge.add %0, %1 : (tensor<4x4xf32>, tensor<4x4xf32>) -> tensor<4x4xf32>
  func.return %2 : tensor<4x4xf32>
}

// -----

// Every result has a buffer of its own: copies of an argument, a constant, a value that is
// returned twice, and a reshape of one that is returned.
// CHECK-LABEL: @results
func.func @results(%x: tensor<4xf32>) -> (tensor<4xf32>, tensor<f32>, tensor<4xf32>, tensor<4xf32>, tensor<2x2xf32>) {
  // CHECK-NEXT: %[[E:.*]], %[[TWICE:.*]] = mge.kernel "exp_cast" (%{{.*}} = %x : tensor<4xf32>)
  // CHECK: %[[X:.*]] = mge.kernel "cast" (%{{.*}} = %x : tensor<4xf32>)
  // CHECK: %[[C:.*]] = mge.kernel "cast" () -> tensor<f32> {
  // CHECK-NEXT: mge.constant
  // CHECK: %[[R:.*]] = mge.reshape %[[E]]
  // CHECK-NEXT: %[[S:.*]] = mge.kernel "cast" (%{{.*}} = %[[R]] : tensor<2x2xf32>)
  // CHECK: func.return %[[X]], %[[C]], %[[E]], %[[TWICE]], %[[S]]
  %c = mge.constant {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.exp %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = mge.reshape %0 {shape = [2, 2]} : (tensor<4xf32>) -> tensor<2x2xf32>
  func.return %x, %c, %0, %0, %1 : tensor<4xf32>, tensor<f32>, tensor<4xf32>, tensor<4xf32>, tensor<2x2xf32>
}

// -----

// A reshape stays outside; a result may be the reshape of a kernel's.
// CHECK-LABEL: @reshape
func.func @reshape(%x: tensor<4xf32>) -> tensor<4x1xf32> {
  // CHECK-NEXT: %[[E:.*]] = mge.kernel "exp"
  // CHECK: %[[R:.*]] = mge.reshape %[[E]] {shape = [2, 2]}
  // CHECK-NEXT: %[[N:.*]] = mge.kernel "neg" (%{{.*}} = %[[R]] : tensor<2x2xf32>)
  // CHECK: %[[Y:.*]] = mge.reshape %[[N]] {shape = [4, 1]}
  // CHECK-NEXT: func.return %[[Y]]
  %0 = mge.exp %x : (tensor<4xf32>) -> tensor<4xf32>
  %1 = mge.reshape %0 {shape = [2, 2]} : (tensor<4xf32>) -> tensor<2x2xf32>
  %2 = mge.neg %1 : (tensor<2x2xf32>) -> tensor<2x2xf32>
  %3 = mge.reshape %2 {shape = [4, 1]} : (tensor<2x2xf32>) -> tensor<4x1xf32>
  func.return %3 : tensor<4x1xf32>
}

// -----

// The add joins the first kernel although it comes after the second, which needs that kernel;
// the weight it needs goes before it.
// CHECK-LABEL: @late
func.func @late(%x: tensor<8x4xf32>, %y: tensor<4x8xf32>) -> (tensor<8x8xf32>, tensor<8x8xf32>) {
  // CHECK-NEXT: %[[W:.*]] = mge.weight
  // CHECK-NEXT: %[[M:.*]], %[[A:.*]] = mge.kernel "matmul_add" (%{{.*}} = %x : tensor<8x4xf32>, %{{.*}} = %y : tensor<4x8xf32>, %{{.*}} = %[[W]] : tensor<8xf32>)
  // CHECK: %[[T:.*]] = mge.kernel "transpose" (%{{.*}} = %[[M]] : tensor<8x8xf32>)
  // CHECK: func.return %[[T]], %[[A]]
  %0 = mge.matmul %x, %y : (tensor<8x4xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
  %1 = mge.transpose %0 {perm = [1, 0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %w = mge.weight {key = "w", shape = [8], dtype = f32} : () -> tensor<8xf32>
  %2 = mge.add %0, %w : (tensor<8x8xf32>, tensor<8xf32>) -> tensor<8x8xf32>
  func.return %1, %2 : tensor<8x8xf32>, tensor<8x8xf32>
}

// -----

// What nobody needs goes. The constant that is not a scalar stays outside.
// CHECK-LABEL: @unused
func.func @unused(%x: tensor<2xf32>) -> tensor<2xf32> {
  // CHECK-NEXT: %[[C:.*]] = mge.constant
  // CHECK-NEXT: mge.kernel "add" (%{{.*}} = %x : tensor<2xf32>, %{{.*}} = %[[C]] : tensor<2xf32>)
  // CHECK-NOT: mge.weight
  %w = mge.weight {key = "w", shape = [8], dtype = f32} : () -> tensor<8xf32>
  %c = mge.constant {value = dense<[1.0, 2.0]> : tensor<2xf32>} : () -> tensor<2xf32>
  %0 = mge.add %x, %c : (tensor<2xf32>, tensor<2xf32>) -> tensor<2xf32>
  func.return %0 : tensor<2xf32>
}

// -----

// Nor do ops that nobody needs become kernels, though no other pass removes them before.
// CHECK-LABEL: @unused_ops
func.func @unused_ops(%x: tensor<2x4xf32>) -> tensor<2x4xf32> {
  // CHECK-NEXT: mge.kernel "neg"
  // CHECK-NOT: mge.kernel
  %0 = mge.exp %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %1 = mge.softmax %0 {axis = 1} : (tensor<2x4xf32>) -> tensor<2x4xf32>
  %2 = mge.neg %x : (tensor<2x4xf32>) -> tensor<2x4xf32>
  func.return %2 : tensor<2x4xf32>
}
