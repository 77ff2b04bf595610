// RUN: mgec-opt %s --split-input-file -p mge-canonicalize,mge-fuse-attention,mge-canonicalize,mge-cse --print-debuginfo | filecheck %s

// What a BERT layer exports: the transposes go, and the new op has the second product's line.
// CHECK-LABEL: @bert
// CHECK-NEXT: %[[A:.*]] = mge.attention %q, %k, %v, bias = %mask {scale = 0.25} : (tensor<2x5x3x16xf32>, tensor<2x7x3x16xf32>, tensor<2x7x3x4xf32>, tensor<2x1x1x7xf32>) -> tensor<2x5x3x4xf32> loc("net.py":7:1)
// CHECK-NEXT: %[[R:.*]] = mge.reshape %[[A]] {shape = [2, 5, 12]}
// CHECK-NEXT: return %[[R]]
func.func @bert(%q: tensor<2x5x3x16xf32>, %k: tensor<2x7x3x16xf32>, %v: tensor<2x7x3x4xf32>, %mask: tensor<2x1x1x7xf32>) -> tensor<2x5x12xf32> {
  %c = mge.constant {value = dense<4.0> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.transpose %q {perm = [0, 2, 1, 3]} : (tensor<2x5x3x16xf32>) -> tensor<2x3x5x16xf32>
  %1 = mge.transpose %k {perm = [0, 2, 3, 1]} : (tensor<2x7x3x16xf32>) -> tensor<2x3x16x7xf32>
  %2 = mge.matmul %0, %1 : (tensor<2x3x5x16xf32>, tensor<2x3x16x7xf32>) -> tensor<2x3x5x7xf32>
  %3 = mge.div %2, %c : (tensor<2x3x5x7xf32>, tensor<f32>) -> tensor<2x3x5x7xf32>
  %4 = mge.add %mask, %3 : (tensor<2x1x1x7xf32>, tensor<2x3x5x7xf32>) -> tensor<2x3x5x7xf32>
  %5 = mge.softmax %4 {axis = 3} : (tensor<2x3x5x7xf32>) -> tensor<2x3x5x7xf32>
  %6 = mge.transpose %v {perm = [0, 2, 1, 3]} : (tensor<2x7x3x4xf32>) -> tensor<2x3x7x4xf32>
  %7 = mge.matmul %5, %6 : (tensor<2x3x5x7xf32>, tensor<2x3x7x4xf32>) -> tensor<2x3x5x4xf32> loc("net.py":7:1)
  %8 = mge.transpose %7 {perm = [0, 2, 1, 3]} : (tensor<2x3x5x4xf32>) -> tensor<2x5x3x4xf32>
  %9 = mge.reshape %8 {shape = [2, 5, 12]} : (tensor<2x5x3x4xf32>) -> tensor<2x5x12xf32>
  func.return %9 : tensor<2x5x12xf32>
}

// -----

// The scale on both operands, below and above the transpose; no transpose of the result.
// CHECK-LABEL: @split_scale
// CHECK: %[[A:.*]] = mge.attention %x, %x, %x {scale = 0.25}
// CHECK-NEXT: %[[R:.*]] = mge.transpose %[[A]] {perm = [0, 2, 1, 3]}
// CHECK-NEXT: return %[[R]]
func.func @split_scale(%x: tensor<1x5x3x16xf64>) -> tensor<1x3x5x16xf64> {
  %c = mge.constant {value = dense<0.5> : tensor<f64>} : () -> tensor<f64>
  %0 = mge.transpose %x {perm = [0, 2, 1, 3]} : (tensor<1x5x3x16xf64>) -> tensor<1x3x5x16xf64>
  %1 = mge.mul %0, %c : (tensor<1x3x5x16xf64>, tensor<f64>) -> tensor<1x3x5x16xf64>
  %2 = mge.mul %0, %c : (tensor<1x3x5x16xf64>, tensor<f64>) -> tensor<1x3x5x16xf64>
  %3 = mge.matmul %1, %2 {transpose_rhs = true} : (tensor<1x3x5x16xf64>, tensor<1x3x5x16xf64>) -> tensor<1x3x5x5xf64>
  %4 = mge.softmax %3 {axis = 3} : (tensor<1x3x5x5xf64>) -> tensor<1x3x5x5xf64>
  %5 = mge.matmul %4, %0 : (tensor<1x3x5x5xf64>, tensor<1x3x5x16xf64>) -> tensor<1x3x5x16xf64>
  func.return %5 : tensor<1x3x5x16xf64>
}

// -----

// Without transposes every head is an example, and so are matrices of any rank.
// CHECK-LABEL: @heads_first
// CHECK-DAG: %[[Q:.*]] = mge.reshape %q {shape = [6, 5, 1, 8]}
// CHECK-DAG: %[[K:.*]] = mge.reshape %k {shape = [6, 7, 1, 8]}
// CHECK-DAG: %[[B:.*]] = mge.reshape %bias {shape = [6, 1, 5, 7]}
// CHECK: %[[A:.*]] = mge.attention %[[Q]], %[[K]], %[[K]], bias = %[[B]] {scale = 1.0}
// CHECK-NEXT: mge.reshape %[[A]] {shape = [2, 3, 5, 8]}
func.func @heads_first(%q: tensor<2x3x5x8xf32>, %k: tensor<2x3x7x8xf32>, %bias: tensor<2x3x5x7xf32>) -> tensor<2x3x5x8xf32> {
  %0 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<2x3x5x8xf32>, tensor<2x3x7x8xf32>) -> tensor<2x3x5x7xf32>
  %1 = mge.add %0, %bias : (tensor<2x3x5x7xf32>, tensor<2x3x5x7xf32>) -> tensor<2x3x5x7xf32>
  %2 = mge.softmax %1 {axis = 3} : (tensor<2x3x5x7xf32>) -> tensor<2x3x5x7xf32>
  %3 = mge.matmul %2, %k : (tensor<2x3x5x7xf32>, tensor<2x3x7x8xf32>) -> tensor<2x3x5x8xf32>
  func.return %3 : tensor<2x3x5x8xf32>
}

// CHECK-LABEL: @one_matrix
// CHECK: mge.attention %{{.*}} {scale = 1.0} : (tensor<1x5x1x8xf32>, tensor<1x7x1x8xf32>, tensor<1x7x1x8xf32>) -> tensor<1x5x1x8xf32>
func.func @one_matrix(%q: tensor<5x8xf32>, %k: tensor<7x8xf32>) -> tensor<5x8xf32> {
  %0 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<5x8xf32>, tensor<7x8xf32>) -> tensor<5x7xf32>
  %1 = mge.softmax %0 {axis = 1} : (tensor<5x7xf32>) -> tensor<5x7xf32>
  %2 = mge.matmul %1, %k : (tensor<5x7xf32>, tensor<7x8xf32>) -> tensor<5x8xf32>
  func.return %2 : tensor<5x8xf32>
}

// -----

// Where a copy of the keys would be needed, the one query is moved instead: decoding.
// CHECK-LABEL: @decode
// CHECK: %[[Q:.*]] = mge.reshape %q {shape = [4, 1, 3, 8]}
// CHECK: mge.attention %[[Q]], %{{.*}}, %{{.*}} {scale = 1.0} : (tensor<4x1x3x8xf32>, tensor<4x7x1x8xf32>, tensor<4x7x1x8xf32>) -> tensor<4x1x3x8xf32>
func.func @decode(%q: tensor<2x1x6x8xf32>, %k: tensor<2x2x7x8xf32>) -> tensor<2x1x6x8xf32> {
  %0 = mge.transpose %q {perm = [0, 2, 1, 3]} : (tensor<2x1x6x8xf32>) -> tensor<2x6x1x8xf32>
  %1 = mge.reshape %k {shape = [2, 2, 1, 7, 8]} : (tensor<2x2x7x8xf32>) -> tensor<2x2x1x7x8xf32>
  %2 = mge.broadcast %1 {shape = [2, 2, 3, 7, 8]} : (tensor<2x2x1x7x8xf32>) -> tensor<2x2x3x7x8xf32>
  %3 = mge.reshape %2 {shape = [2, 6, 7, 8]} : (tensor<2x2x3x7x8xf32>) -> tensor<2x6x7x8xf32>
  %4 = mge.matmul %0, %3 {transpose_rhs = true} : (tensor<2x6x1x8xf32>, tensor<2x6x7x8xf32>) -> tensor<2x6x1x7xf32>
  %5 = mge.softmax %4 {axis = 3} : (tensor<2x6x1x7xf32>) -> tensor<2x6x1x7xf32>
  %6 = mge.matmul %5, %3 : (tensor<2x6x1x7xf32>, tensor<2x6x7x8xf32>) -> tensor<2x6x1x8xf32>
  %7 = mge.transpose %6 {perm = [0, 2, 1, 3]} : (tensor<2x6x1x8xf32>) -> tensor<2x1x6x8xf32>
  func.return %7 : tensor<2x1x6x8xf32>
}

// Heads that are repeated are read once.
// CHECK-LABEL: @grouped
// CHECK-NEXT: mge.attention %q, %k, %k {scale = 1.0} : (tensor<2x5x6x8xf32>, tensor<2x7x2x8xf32>, tensor<2x7x2x8xf32>) -> tensor<2x5x6x8xf32>
func.func @grouped(%q: tensor<2x5x6x8xf32>, %k: tensor<2x7x2x8xf32>) -> tensor<2x5x6x8xf32> {
  %0 = mge.transpose %q {perm = [0, 2, 1, 3]} : (tensor<2x5x6x8xf32>) -> tensor<2x6x5x8xf32>
  %1 = mge.transpose %k {perm = [0, 2, 1, 3]} : (tensor<2x7x2x8xf32>) -> tensor<2x2x7x8xf32>
  %3 = mge.repeat %1 {repeats = 3, axis = 1} : (tensor<2x2x7x8xf32>) -> tensor<2x6x7x8xf32>
  %4 = mge.matmul %0, %3 {transpose_rhs = true} : (tensor<2x6x5x8xf32>, tensor<2x6x7x8xf32>) -> tensor<2x6x5x7xf32>
  %5 = mge.softmax %4 {axis = 3} : (tensor<2x6x5x7xf32>) -> tensor<2x6x5x7xf32>
  %6 = mge.matmul %5, %3 : (tensor<2x6x5x7xf32>, tensor<2x6x7x8xf32>) -> tensor<2x6x5x8xf32>
  %7 = mge.transpose %6 {perm = [0, 2, 1, 3]} : (tensor<2x6x5x8xf32>) -> tensor<2x5x6x8xf32>
  func.return %7 : tensor<2x5x6x8xf32>
}

// -----

// A mask that hides keys is a bias; two terms are one.
// CHECK-LABEL: @masks
// CHECK: %[[M:.*]] = mge.select %mask, %{{.*}}, %{{.*}} : (tensor<1x7xi1>, tensor<f32>, tensor<f32>) -> tensor<1x7xf32>
// CHECK: %[[B:.*]] = mge.add %{{.*}}, %{{.*}} : (tensor<5x7xf32>, tensor<1x7xf32>) -> tensor<5x7xf32>
// CHECK: mge.attention %{{.*}}, bias = %[[B]] {scale = 2.0}
func.func @masks(%q: tensor<3x5x8xf32>, %k: tensor<3x7x8xf32>, %mask: tensor<1x7xi1>, %bias: tensor<5x7xf32>) -> tensor<3x5x8xf32> {
  %c = mge.constant {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %low = mge.constant {value = dense<-3.0e38> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<3x5x8xf32>, tensor<3x7x8xf32>) -> tensor<3x5x7xf32>
  %1 = mge.mul %0, %c : (tensor<3x5x7xf32>, tensor<f32>) -> tensor<3x5x7xf32>
  %2 = mge.add %1, %bias : (tensor<3x5x7xf32>, tensor<5x7xf32>) -> tensor<3x5x7xf32>
  %3 = mge.select %mask, %2, %low : (tensor<1x7xi1>, tensor<3x5x7xf32>, tensor<f32>) -> tensor<3x5x7xf32>
  %4 = mge.softmax %3 {axis = 2} : (tensor<3x5x7xf32>) -> tensor<3x5x7xf32>
  %5 = mge.matmul %4, %k : (tensor<3x5x7xf32>, tensor<3x7x8xf32>) -> tensor<3x5x8xf32>
  func.return %5 : tensor<3x5x8xf32>
}

// A constant mask of what comes later, selected or added: the same.
// CHECK-LABEL: @causal
// CHECK-NOT: mge.constant
// CHECK: %[[A:.*]] = mge.attention %{{.*}}, %{{.*}}, %{{.*}} {scale = 1.0, causal = true}
// CHECK-NEXT: %[[R:.*]] = mge.reshape %[[A]]
// CHECK-NEXT: return %[[R]], %[[R]]
func.func @causal(%q: tensor<1x2x8xf32>, %k: tensor<1x3x8xf32>) -> (tensor<1x2x8xf32>, tensor<1x2x8xf32>) {
  %seen = mge.constant {value = dense<[[true, true, false], [true, true, true]]> : tensor<2x3xi1>} : () -> tensor<2x3xi1>
  %bias = mge.constant {value = dense<[[[0.0, 0.0, -3.0e38], [0.0, 0.0, 0.0]]]> : tensor<1x2x3xf32>} : () -> tensor<1x2x3xf32>
  %low = mge.constant {value = dense<-3.0e38> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<1x2x8xf32>, tensor<1x3x8xf32>) -> tensor<1x2x3xf32>
  %1 = mge.select %seen, %0, %low : (tensor<2x3xi1>, tensor<1x2x3xf32>, tensor<f32>) -> tensor<1x2x3xf32>
  %2 = mge.softmax %1 {axis = 2} : (tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %3 = mge.matmul %2, %k : (tensor<1x2x3xf32>, tensor<1x3x8xf32>) -> tensor<1x2x8xf32>
  %4 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<1x2x8xf32>, tensor<1x3x8xf32>) -> tensor<1x2x3xf32>
  %5 = mge.add %4, %bias : (tensor<1x2x3xf32>, tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %6 = mge.softmax %5 {axis = 2} : (tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %7 = mge.matmul %6, %k : (tensor<1x2x3xf32>, tensor<1x3x8xf32>) -> tensor<1x2x8xf32>
  func.return %3, %7 : tensor<1x2x8xf32>, tensor<1x2x8xf32>
}

// So is a comparison of positions, here of a query that is one further on.
// CHECK-LABEL: @positions
// CHECK-NOT: mge.iota
// CHECK: mge.attention %{{.*}}, %{{.*}}, %{{.*}} {scale = 1.0, causal = true}
func.func @positions(%q: tensor<1x2x8xf32>, %k: tensor<1x3x8xf32>) -> tensor<1x2x8xf32> {
  %low = mge.constant {value = dense<-3.0e38> : tensor<f32>} : () -> tensor<f32>
  %one = mge.constant {value = dense<1> : tensor<i32>} : () -> tensor<i32>
  %i = mge.iota {shape = [2, 1], axis = 0, dtype = i32} : () -> tensor<2x1xi32>
  %j = mge.iota {shape = [1, 3], axis = 1, dtype = i32} : () -> tensor<1x3xi32>
  %here = mge.add %i, %one : (tensor<2x1xi32>, tensor<i32>) -> tensor<2x1xi32>
  %later = mge.greater %j, %here : (tensor<1x3xi32>, tensor<2x1xi32>) -> tensor<2x3xi1>
  %0 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<1x2x8xf32>, tensor<1x3x8xf32>) -> tensor<1x2x3xf32>
  %1 = mge.select %later, %low, %0 : (tensor<2x3xi1>, tensor<f32>, tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %2 = mge.softmax %1 {axis = 2} : (tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %3 = mge.matmul %2, %k : (tensor<1x2x3xf32>, tensor<1x3x8xf32>) -> tensor<1x2x8xf32>
  func.return %3 : tensor<1x2x8xf32>
}

// Another alignment is a mask as any.
// CHECK-LABEL: @other_positions
// CHECK: mge.attention %{{.*}}, %{{.*}}, %{{.*}}, bias = %{{.*}} {scale = 1.0} :
func.func @other_positions(%q: tensor<1x2x8xf32>, %k: tensor<1x3x8xf32>) -> tensor<1x2x8xf32> {
  %low = mge.constant {value = dense<-3.0e38> : tensor<f32>} : () -> tensor<f32>
  %i = mge.iota {shape = [2, 1], axis = 0, dtype = i32} : () -> tensor<2x1xi32>
  %j = mge.iota {shape = [1, 3], axis = 1, dtype = i32} : () -> tensor<1x3xi32>
  %later = mge.greater %j, %i : (tensor<1x3xi32>, tensor<2x1xi32>) -> tensor<2x3xi1>
  %0 = mge.matmul %q, %k {transpose_rhs = true} : (tensor<1x2x8xf32>, tensor<1x3x8xf32>) -> tensor<1x2x3xf32>
  %1 = mge.select %later, %low, %0 : (tensor<2x3xi1>, tensor<f32>, tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %2 = mge.softmax %1 {axis = 2} : (tensor<1x2x3xf32>) -> tensor<1x2x3xf32>
  %3 = mge.matmul %2, %k : (tensor<1x2x3xf32>, tensor<1x3x8xf32>) -> tensor<1x2x8xf32>
  func.return %3 : tensor<1x2x8xf32>
}

// -----

// Left alone: weights that are a result, too; a mask that does not hide; a scale after a bias;
// a softmax over the queries; another dtype.
// CHECK-LABEL: @left_alone
// CHECK-NOT: mge.attention
func.func @left_alone(%q: tensor<3x5x5xf32>, %mask: tensor<1x5xi1>, %h: tensor<5x5xf16>) -> (tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<5x5xf16>) {
  %c = mge.constant {value = dense<2.0> : tensor<f32>} : () -> tensor<f32>
  %low = mge.constant {value = dense<-10.0> : tensor<f32>} : () -> tensor<f32>
  %0 = mge.matmul %q, %q {transpose_rhs = true} : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %1 = mge.softmax %0 {axis = 2} : (tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %2 = mge.matmul %1, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %3 = mge.matmul %q, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %4 = mge.select %mask, %3, %low : (tensor<1x5xi1>, tensor<3x5x5xf32>, tensor<f32>) -> tensor<3x5x5xf32>
  %5 = mge.softmax %4 {axis = 2} : (tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %6 = mge.matmul %5, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %7 = mge.matmul %q, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %8 = mge.add %7, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %9 = mge.mul %8, %c : (tensor<3x5x5xf32>, tensor<f32>) -> tensor<3x5x5xf32>
  %10 = mge.softmax %9 {axis = 2} : (tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %11 = mge.matmul %10, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %12 = mge.matmul %q, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %13 = mge.softmax %12 {axis = 1} : (tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %14 = mge.matmul %13, %q : (tensor<3x5x5xf32>, tensor<3x5x5xf32>) -> tensor<3x5x5xf32>
  %15 = mge.matmul %h, %h : (tensor<5x5xf16>, tensor<5x5xf16>) -> tensor<5x5xf16>
  %16 = mge.softmax %15 {axis = 1} : (tensor<5x5xf16>) -> tensor<5x5xf16>
  %17 = mge.matmul %16, %h : (tensor<5x5xf16>, tensor<5x5xf16>) -> tensor<5x5xf16>
  func.return %1, %2, %6, %11, %14, %17 : tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<3x5x5xf32>, tensor<5x5xf16>
}
