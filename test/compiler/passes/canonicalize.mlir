// RUN: mgec-opt %s -p mge-canonicalize --split-input-file | filecheck %s

// CHECK-LABEL: @nothing_moves
// CHECK-NEXT: func.return %x, %x, %x, %x, %x
func.func @nothing_moves(%x: tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) {
  %0 = mge.cast %x {dtype = f32} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = mge.reshape %x {shape = [2, 3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %2 = mge.broadcast %x {shape = [2, 3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %3 = mge.transpose %x {perm = [0, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %4 = mge.slice %x {starts = [0, 0], stops = [2, 3], steps = [1, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %0, %1, %2, %3, %4 : tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>
}
// CHECK-LABEL: @nothing_changes
// CHECK-NEXT: func.return %x, %x, %x, %x, %x, %x, %x
func.func @nothing_changes(%x: tensor<2x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>) {
  %0 = mge.pad %x {low = [0, 0], high = [0, 0]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %1 = mge.concat %x {axis = 0} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %2 = mge.reduce_max %x {axes = []} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %3 = mge.reverse %x {axes = []} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %4 = mge.tile %x {reps = [1, 1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %5 = mge.repeat %x {repeats = 1, axis = 1} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %6 = mge.unslice %x {starts = [0, 0], steps = [1, 1], shape = [2, 3]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return %0, %1, %2, %3, %4, %5, %6 : tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>, tensor<2x3xf32>
}

// -----

// CHECK-LABEL: @chains
func.func @chains(%x: tensor<2x3x4xf32>) -> (tensor<24xf32>, tensor<4x3x2xf32>, tensor<2x1xf32>) {
  // CHECK-NEXT: %[[A:.*]] = mge.reshape %x {shape = [24]} : (tensor<2x3x4xf32>)
  %0 = mge.reshape %x {shape = [6, 4]} : (tensor<2x3x4xf32>) -> tensor<6x4xf32>
  %1 = mge.reshape %0 {shape = [24]} : (tensor<6x4xf32>) -> tensor<24xf32>
  // CHECK-NEXT: %[[B:.*]] = mge.transpose %x {perm = [2, 1, 0]}
  %2 = mge.transpose %x {perm = [1, 2, 0]} : (tensor<2x3x4xf32>) -> tensor<3x4x2xf32>
  %3 = mge.transpose %2 {perm = [1, 0, 2]} : (tensor<3x4x2xf32>) -> tensor<4x3x2xf32>
  // CHECK: mge.slice %{{.*}} {starts = [21, 1], stops = [8, 2], steps = [-12, 1]} : (tensor<24x2xf32>) -> tensor<2x1xf32>
  %4 = "test.op"() : () -> tensor<24x2xf32>
  %5 = mge.slice %4 {starts = [1, 1], stops = [24, 2], steps = [4, 1]} : (tensor<24x2xf32>) -> tensor<6x1xf32>
  %6 = mge.slice %5 {starts = [5, 0], stops = [0, 1], steps = [-3, 1]} : (tensor<6x1xf32>) -> tensor<2x1xf32>
  func.return %1, %3, %6 : tensor<24xf32>, tensor<4x3x2xf32>, tensor<2x1xf32>
}

// -----

// CHECK-LABEL: @exact
// CHECK-NOT: mge
// CHECK: func.return %x, %x, %x, %x, %x, %x, %n, %n
func.func @exact(%x: tensor<3xf32>, %n: tensor<3xi32>) -> (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xi32>, tensor<3xi32>) {
  %one = mge.constant {value = dense<1.0> : tensor<f32>} : () -> tensor<f32>
  %zero = mge.constant {value = dense<0.0> : tensor<3xf32>} : () -> tensor<3xf32>
  %minus = mge.constant {value = dense<-0.0> : tensor<f32>} : () -> tensor<f32>
  %none = mge.constant {value = dense<0> : tensor<i32>} : () -> tensor<i32>
  %0 = mge.mul %one, %x : (tensor<f32>, tensor<3xf32>) -> tensor<3xf32>
  %1 = mge.div %x, %one : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %2 = mge.sub %x, %zero : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  %3 = mge.add %x, %minus : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %4 = mge.neg %x : (tensor<3xf32>) -> tensor<3xf32>
  %5 = mge.neg %4 : (tensor<3xf32>) -> tensor<3xf32>
  %6 = mge.maximum %x, %x : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  %7 = mge.add %n, %none : (tensor<3xi32>, tensor<i32>) -> tensor<3xi32>
  %8 = mge.or %none, %n : (tensor<i32>, tensor<3xi32>) -> tensor<3xi32>
  func.return %0, %1, %2, %3, %5, %6, %7, %8 : tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xi32>, tensor<3xi32>
}

// -----

// -0.0 + 0.0 is 0.0; NaN * 0.0 is NaN; x - -0.0 is x + 0.0.
// CHECK-LABEL: @inexact
func.func @inexact(%x: tensor<3xf32>) -> (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %zero = mge.constant {value = dense<0.0> : tensor<f32>} : () -> tensor<f32>
  %minus = mge.constant {value = dense<-0.0> : tensor<f32>} : () -> tensor<f32>
  // CHECK: mge.add %x
  %0 = mge.add %x, %zero : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  // CHECK-NEXT: mge.mul %x
  %1 = mge.mul %x, %zero : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  // CHECK-NEXT: mge.sub %x
  %2 = mge.sub %x, %minus : (tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  // CHECK-NEXT: mge.sub %x, %x
  %3 = mge.sub %x, %x : (tensor<3xf32>, tensor<3xf32>) -> tensor<3xf32>
  func.return %0, %1, %2, %3 : tensor<3xf32>, tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}

// -----

// CHECK-LABEL: @widening
func.func @widening(%h: tensor<3xf16>, %f: tensor<3xf32>) -> (tensor<3xf64>, tensor<3xf16>, tensor<3xf32>) {
  // CHECK-NEXT: mge.cast %h {dtype = f64} : (tensor<3xf16>)
  %0 = mge.cast %h {dtype = f32} : (tensor<3xf16>) -> tensor<3xf32>
  %1 = mge.cast %0 {dtype = f64} : (tensor<3xf32>) -> tensor<3xf64>
  %2 = mge.cast %0 {dtype = f16} : (tensor<3xf32>) -> tensor<3xf16>
  // CHECK-NEXT: mge.cast %f {dtype = f16}
  // CHECK-NEXT: mge.cast %{{.*}} {dtype = f32}
  %3 = mge.cast %f {dtype = f16} : (tensor<3xf32>) -> tensor<3xf16>
  %4 = mge.cast %3 {dtype = f32} : (tensor<3xf16>) -> tensor<3xf32>
  // CHECK-NEXT: func.return %{{.*}}, %h, %{{.*}}
  func.return %1, %2, %4 : tensor<3xf64>, tensor<3xf16>, tensor<3xf32>
}

// -----

// CHECK-LABEL: @broadcasting
func.func @broadcasting(%x: tensor<2x3xf32>, %v: tensor<3xf32>) -> (tensor<2x3xf32>, tensor<4x3xf32>) {
  // CHECK-NEXT: mge.add %x, %v : (tensor<2x3xf32>, tensor<3xf32>)
  %0 = mge.broadcast %v {shape = [2, 3]} : (tensor<3xf32>) -> tensor<2x3xf32>
  %1 = mge.add %x, %0 : (tensor<2x3xf32>, tensor<2x3xf32>) -> tensor<2x3xf32>
  // CHECK-NEXT: %[[E:.*]] = mge.exp %v : (tensor<3xf32>)
  // CHECK-NEXT: mge.broadcast %[[E]] {shape = [4, 3]}
  %2 = mge.broadcast %v {shape = [1, 3]} : (tensor<3xf32>) -> tensor<1x3xf32>
  %3 = mge.broadcast %2 {shape = [4, 3]} : (tensor<1x3xf32>) -> tensor<4x3xf32>
  %4 = mge.exp %3 : (tensor<4x3xf32>) -> tensor<4x3xf32>
  func.return %1, %4 : tensor<2x3xf32>, tensor<4x3xf32>
}

// -----

// CHECK-LABEL: @selecting
func.func @selecting(%c: tensor<3xi1>, %x: tensor<3xf32>, %y: tensor<f32>) -> (tensor<3xf32>, tensor<3xf32>, tensor<3xf32>) {
  %yes = mge.constant {value = dense<true> : tensor<i1>} : () -> tensor<i1>
  %no = mge.constant {value = dense<false> : tensor<i1>} : () -> tensor<i1>
  // CHECK-NEXT: %[[B:.*]] = mge.broadcast %y {shape = [3]}
  %0 = mge.select %yes, %x, %y : (tensor<i1>, tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  %1 = mge.select %no, %x, %y : (tensor<i1>, tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  // CHECK-NEXT: %[[S:.*]] = mge.select %c, %y, %x
  %2 = mge.not %c : (tensor<3xi1>) -> tensor<3xi1>
  %3 = mge.select %2, %x, %y : (tensor<3xi1>, tensor<3xf32>, tensor<f32>) -> tensor<3xf32>
  // CHECK-NEXT: func.return %x, %[[B]], %[[S]]
  func.return %0, %1, %3 : tensor<3xf32>, tensor<3xf32>, tensor<3xf32>
}

// -----

// CHECK-LABEL: @matmul
func.func @matmul(%x: tensor<5x3x2xf32>, %y: tensor<4x3xf32>) -> tensor<5x2x4xf32> {
  // CHECK-NEXT: mge.matmul %x, %y {transpose_lhs = true, transpose_rhs = true}
  %0 = mge.transpose %x {perm = [0, 2, 1]} : (tensor<5x3x2xf32>) -> tensor<5x2x3xf32>
  %1 = mge.transpose %y {perm = [1, 0]} : (tensor<4x3xf32>) -> tensor<3x4xf32>
  %2 = mge.matmul %0, %1 : (tensor<5x2x3xf32>, tensor<3x4xf32>) -> tensor<5x2x4xf32>
  func.return %2 : tensor<5x2x4xf32>
}

// -----

// CHECK-LABEL: @ones
func.func @ones(%x: tensor<1x3x1xf32>, %e: tensor<1x0x1xf32>) -> (tensor<3x1x1xf32>, tensor<3xf32>, tensor<1x6x1xf32>) {
  // CHECK-NEXT: mge.reshape %x {shape = [3, 1, 1]}
  %0 = mge.transpose %x {perm = [1, 0, 2]} : (tensor<1x3x1xf32>) -> tensor<3x1x1xf32>
  // The sum of one -0.0 is 0.0.
  // CHECK-NEXT: %[[R:.*]] = mge.reshape %x {shape = [3]}
  // CHECK-NEXT: %[[Z:.*]] = mge.constant {value = dense<0.000000e+00> : tensor<f32>}
  // CHECK-NEXT: mge.add %[[R]], %[[Z]]
  %1 = mge.reduce_sum %x {axes = [0, 2]} : (tensor<1x3x1xf32>) -> tensor<3xf32>
  // CHECK-NEXT: mge.concat %x, %x {axis = 1}
  %2 = mge.concat %e, %x {axis = 1} : (tensor<1x0x1xf32>, tensor<1x3x1xf32>) -> tensor<1x3x1xf32>
  %3 = mge.concat %2, %x {axis = 1} : (tensor<1x3x1xf32>, tensor<1x3x1xf32>) -> tensor<1x6x1xf32>
  func.return %0, %1, %3 : tensor<3x1x1xf32>, tensor<3xf32>, tensor<1x6x1xf32>
}

// -----

// Transposes meet across reshapes that add, drop or merge axes which they leave alone.
// CHECK-LABEL: @transposes_meet
func.func @transposes_meet(%x: tensor<2x3x4x5xf32>, %y: tensor<1x3x4x5xf32>) -> (tensor<2x4x5x3xf32>, tensor<1x4x5x3xf32>, tensor<3x2xf32>) {
  // CHECK-NEXT: %[[A:.*]] = mge.transpose %x {perm = [0, 2, 3, 1]}
  %0 = mge.transpose %x {perm = [0, 2, 1, 3]} : (tensor<2x3x4x5xf32>) -> tensor<2x4x3x5xf32>
  %1 = mge.reshape %0 {shape = [8, 3, 5]} : (tensor<2x4x3x5xf32>) -> tensor<8x3x5xf32>
  %2 = mge.transpose %1 {perm = [0, 2, 1]} : (tensor<8x3x5xf32>) -> tensor<8x5x3xf32>
  %3 = mge.reshape %2 {shape = [2, 4, 5, 3]} : (tensor<8x5x3xf32>) -> tensor<2x4x5x3xf32>
  // CHECK: %[[B:.*]] = mge.transpose %{{.*}} {perm = [0, 2, 3, 1]} : (tensor<1x3x4x5xf32>) -> tensor<1x4x5x3xf32>
  %4 = mge.transpose %y {perm = [0, 2, 1, 3]} : (tensor<1x3x4x5xf32>) -> tensor<1x4x3x5xf32>
  %5 = mge.reshape %4 {shape = [4, 3, 5]} : (tensor<1x4x3x5xf32>) -> tensor<4x3x5xf32>
  %6 = mge.transpose %5 {perm = [0, 2, 1]} : (tensor<4x3x5xf32>) -> tensor<4x5x3xf32>
  %7 = mge.reshape %6 {shape = [1, 4, 5, 3]} : (tensor<4x5x3xf32>) -> tensor<1x4x5x3xf32>
  // Only what is used of x is moved.
  // CHECK-NEXT: %[[S:.*]] = mge.slice %x {starts = [0, 0, 0, 4], stops = [2, 3, 1, 5], steps = [1, 1, 1, 1]}
  // CHECK-NEXT: %[[D:.*]] = mge.reshape %[[S]] {shape = [2, 3]}
  // CHECK-NEXT: %[[C:.*]] = mge.transpose %[[D]] {perm = [1, 0]}
  // CHECK-NEXT: return %[[A]], %[[B]], %[[C]]
  %8 = mge.transpose %x {perm = [3, 1, 0, 2]} : (tensor<2x3x4x5xf32>) -> tensor<5x3x2x4xf32>
  %9 = mge.slice %8 {starts = [4, 0, 0, 0], stops = [5, 3, 2, 1], steps = [1, 1, 1, 1]} : (tensor<5x3x2x4xf32>) -> tensor<1x3x2x1xf32>
  %10 = mge.reshape %9 {shape = [3, 2]} : (tensor<1x3x2x1xf32>) -> tensor<3x2xf32>
  func.return %3, %7, %10 : tensor<2x4x5x3xf32>, tensor<1x4x5x3xf32>, tensor<3x2xf32>
}

// -----

// Not across one that splits what moves, nor before a transpose that something else needs.
// CHECK-LABEL: @transposes_stay
func.func @transposes_stay(%x: tensor<2x6xf32>) -> (tensor<2x6xf32>, tensor<6x2xf32>, tensor<1x2xf32>) {
  // CHECK-NEXT: %[[T:.*]] = mge.transpose %x {perm = [1, 0]}
  // CHECK-NEXT: mge.reshape %[[T]] {shape = [2, 6]}
  // CHECK-NEXT: mge.slice %[[T]]
  %0 = mge.transpose %x {perm = [1, 0]} : (tensor<2x6xf32>) -> tensor<6x2xf32>
  %1 = mge.reshape %0 {shape = [2, 6]} : (tensor<6x2xf32>) -> tensor<2x6xf32>
  %2 = mge.slice %0 {starts = [5, 0], stops = [6, 2], steps = [1, 1]} : (tensor<6x2xf32>) -> tensor<1x2xf32>
  func.return %1, %0, %2 : tensor<2x6xf32>, tensor<6x2xf32>, tensor<1x2xf32>
}
