// RUN: mgec-opt %s -p mge-form-kernels,mge-plan-memory --split-input-file | filecheck %s

// A value's place is free again after its last use; -1 is the result.
// CHECK-LABEL: @chain
// CHECK-SAME: attributes {mge.arena_bytes = 8192 : i64}
func.func @chain(%x: tensor<16x64xf32>, %w: tensor<64x64xf32>) -> tensor<16x64xf32> {
  // CHECK: mge.kernel "matmul" {{.*}} attributes {offsets = array<i64: 0>}
  // CHECK: mge.kernel "matmul" {{.*}} attributes {offsets = array<i64: 4096>}
  // CHECK: mge.kernel "matmul" {{.*}} attributes {offsets = array<i64: 0>}
  // CHECK: mge.kernel "matmul" {{.*}} attributes {offsets = array<i64: -1>}
  %0 = mge.matmul %x, %w : (tensor<16x64xf32>, tensor<64x64xf32>) -> tensor<16x64xf32>
  %1 = mge.matmul %0, %w : (tensor<16x64xf32>, tensor<64x64xf32>) -> tensor<16x64xf32>
  %2 = mge.matmul %1, %w : (tensor<16x64xf32>, tensor<64x64xf32>) -> tensor<16x64xf32>
  %3 = mge.matmul %2, %w : (tensor<16x64xf32>, tensor<64x64xf32>) -> tensor<16x64xf32>
  func.return %3 : tensor<16x64xf32>
}

// -----

// What is alive together lies apart; sizes are rounded up to 64 bytes.
// CHECK-LABEL: @together
// CHECK-SAME: attributes {mge.arena_bytes = 192 : i64}
func.func @together(%x: tensor<5x5xf32>, %y: tensor<1x5xf32>) -> tensor<7x5xf32> {
  // CHECK: mge.kernel "transpose" {{.*}} attributes {offsets = array<i64: 0>}
  // CHECK: mge.kernel "sin" {{.*}} attributes {offsets = array<i64: 128>}
  // CHECK: mge.kernel "concat" {{.*}} attributes {offsets = array<i64: -1>}
  %0 = mge.transpose %x {perm = [1, 0]} : (tensor<5x5xf32>) -> tensor<5x5xf32>
  %1 = mge.sin %y : (tensor<1x5xf32>) -> tensor<1x5xf32>
  %2 = mge.concat %0, %1, %y {axis = 0} : (tensor<5x5xf32>, tensor<1x5xf32>, tensor<1x5xf32>) -> tensor<7x5xf32>
  func.return %2 : tensor<7x5xf32>
}

// -----

// An elementwise kernel overwrites an operand that nothing reads later, through a reshape too.
// CHECK-LABEL: @in_place
// CHECK-SAME: attributes {mge.arena_bytes = 256 : i64}
func.func @in_place(%x: tensor<8x8xf32>) -> tensor<8x8xf32> {
  // CHECK: mge.kernel "transpose" {{.*}} attributes {offsets = array<i64: 0>}
  // CHECK: mge.kernel "exp" in_place [0 = 0] {{.*}} attributes {offsets = array<i64: 0>}
  // CHECK: mge.kernel "reverse" {{.*}} attributes {offsets = array<i64: -1>}
  %0 = mge.transpose %x {perm = [1, 0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %1 = mge.reshape %0 {shape = [64]} : (tensor<8x8xf32>) -> tensor<64xf32>
  %2 = mge.exp %1 : (tensor<64xf32>) -> tensor<64xf32>
  %3 = mge.reshape %2 {shape = [8, 8]} : (tensor<64xf32>) -> tensor<8x8xf32>
  %4 = mge.reverse %3 {axes = [0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  func.return %4 : tensor<8x8xf32>
}

// -----

// Not in place: an operand that is read later, of another dtype, that is broadcast, that is read
// twice under two shapes, that is an argument; nor a kernel that is not elementwise.
// CHECK-LABEL: @not_in_place
// CHECK-NOT: in_place
func.func @not_in_place(%x: tensor<8x8xf32>, %v: tensor<4x8xf32>) -> (tensor<8x8xf32>, tensor<8x8xi32>, tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>) {
  %0 = mge.transpose %x {perm = [1, 0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %1 = mge.exp %0 : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %2 = mge.reverse %1 {axes = [0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %3 = mge.reverse %0 {axes = [0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>

  %4 = mge.reverse %x {axes = [1]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %5 = mge.cast %4 {dtype = i32} : (tensor<8x8xf32>) -> tensor<8x8xi32>
  %6 = mge.reverse %5 {axes = [0]} : (tensor<8x8xi32>) -> tensor<8x8xi32>

  %7 = mge.reduce_max %x {axes = [0]} : (tensor<8x8xf32>) -> tensor<8xf32>
  %8 = mge.broadcast %7 {shape = [8, 8]} : (tensor<8xf32>) -> tensor<8x8xf32>
  %9 = mge.reverse %8 {axes = [0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>

  %10 = mge.concat %v, %v {axis = 0} : (tensor<4x8xf32>, tensor<4x8xf32>) -> tensor<8x8xf32>
  %11 = mge.reshape %10 {shape = [1, 64]} : (tensor<8x8xf32>) -> tensor<1x64xf32>
  %12 = mge.reshape %10 {shape = [64, 1]} : (tensor<8x8xf32>) -> tensor<64x1xf32>
  %13 = mge.add %11, %12 : (tensor<1x64xf32>, tensor<64x1xf32>) -> tensor<64x64xf32>
  %14 = mge.slice %13 {starts = [0, 0], stops = [8, 8], steps = [1, 1]} : (tensor<64x64xf32>) -> tensor<8x8xf32>

  %15 = mge.sin %x : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %16 = mge.reverse %15 {axes = [0]} : (tensor<8x8xf32>) -> tensor<8x8xf32>
  %17 = mge.matmul %16, %2 : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  %18 = mge.matmul %17, %3 : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  func.return %18, %6, %9, %14, %16 : tensor<8x8xf32>, tensor<8x8xi32>, tensor<8x8xf32>, tensor<8x8xf32>, tensor<8x8xf32>
}

// -----

// A result takes over the buffer of the argument it replaces...
// CHECK-LABEL: @donated
// CHECK-SAME: mge.arena_bytes = 0
func.func @donated(%w: tensor<64xf32>, %g: tensor<64xf32>) -> (tensor<64xf32> {mge.donate = 0 : i64}) {
  // CHECK: mge.kernel "sub" in_place [0 = 0] {{.*}} attributes {offsets = array<i64: -1>}
  %0 = mge.sub %w, %g : (tensor<64xf32>, tensor<64xf32>) -> tensor<64xf32>
  func.return %0 : tensor<64xf32>
}

// -----

// ... but not if something reads the argument later, ...
// CHECK-LABEL: @read_later
// CHECK-NOT: in_place
func.func @read_later(%w: tensor<8x8xf32>, %g: tensor<8x8xf32>) -> (tensor<8x8xf32> {mge.donate = 0 : i64}, tensor<8x8xf32>) {
  %0 = mge.sub %w, %g : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  %1 = mge.matmul %w, %g : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  func.return %0, %1 : tensor<8x8xf32>, tensor<8x8xf32>
}

// -----

// ... nor if the kernel that makes it reads elements out of order.
// CHECK-LABEL: @out_of_order
// CHECK-NOT: in_place
func.func @out_of_order(%w: tensor<8x8xf32>, %g: tensor<8x8xf32>) -> (tensor<8x8xf32> {mge.donate = 0 : i64}) {
  %0 = mge.matmul %w, %g : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  %1 = mge.sub %0, %w : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf32>
  func.return %1 : tensor<8x8xf32>
}
