// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @reshape
func.func @reshape(%inp: tensor<6xf32>) {
  // CHECK: mge.reshape %{{.*}} {shape = [2, 3]} : (tensor<6xf32>) -> tensor<2x3xf32>
  %out = mge.reshape %inp {shape = [2, 3]} : (tensor<6xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @reshape_2
func.func @reshape_2(%inp: tensor<1xf32>) {
  // CHECK: mge.reshape %{{.*}} {shape = []} : (tensor<1xf32>) -> tensor<f32>
  %out = mge.reshape %inp {shape = []} : (tensor<1xf32>) -> tensor<f32>
  func.return
}

// CHECK-LABEL: @transpose
func.func @transpose(%inp: tensor<2x3xf32>) {
  // CHECK: mge.transpose %{{.*}} {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  %out = mge.transpose %inp {perm = [1, 0]} : (tensor<2x3xf32>) -> tensor<3x2xf32>
  func.return
}

// CHECK-LABEL: @broadcast
func.func @broadcast(%inp: tensor<1xui8>) {
  // CHECK: mge.broadcast %{{.*}} {shape = [2, 3]} : (tensor<1xui8>) -> tensor<2x3xui8>
  %out = mge.broadcast %inp {shape = [2, 3]} : (tensor<1xui8>) -> tensor<2x3xui8>
  func.return
}

// CHECK-LABEL: @slice
func.func @slice(%inp: tensor<5xi1>) {
  // CHECK: mge.slice %{{.*}} {starts = [4], stops = [-1], steps = [-1]} : (tensor<5xi1>) -> tensor<5xi1>
  %out = mge.slice %inp {starts = [4], stops = [-1], steps = [-1]} : (tensor<5xi1>) -> tensor<5xi1>
  func.return
}

// CHECK-LABEL: @unslice
func.func @unslice(%inp: tensor<2xf32>) {
  // CHECK: mge.unslice %{{.*}} {starts = [4], steps = [-1], shape = [5]} : (tensor<2xf32>) -> tensor<5xf32>
  %out = mge.unslice %inp {starts = [4], steps = [-1], shape = [5]} : (tensor<2xf32>) -> tensor<5xf32>
  func.return
}

// CHECK-LABEL: @reverse
func.func @reverse(%inp: tensor<2x3xf32>) {
  // CHECK: mge.reverse %{{.*}} {axes = [1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  %out = mge.reverse %inp {axes = [1]} : (tensor<2x3xf32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @pad
func.func @pad(%inp: tensor<2xf32>) {
  // CHECK: mge.pad %{{.*}} {low = [1], high = [0], value = "-inf"} : (tensor<2xf32>) -> tensor<3xf32>
  %out = mge.pad %inp {low = [1], high = [0], value = "-inf"} : (tensor<2xf32>) -> tensor<3xf32>
  func.return
}

// CHECK-LABEL: @pad_2
func.func @pad_2(%inp: tensor<2xf32>) {
  // CHECK: mge.pad %{{.*}} {low = [1], high = [0], mode = "reflect"} : (tensor<2xf32>) -> tensor<3xf32>
  %out = mge.pad %inp {low = [1], high = [0], mode = "reflect"} : (tensor<2xf32>) -> tensor<3xf32>
  func.return
}

// CHECK-LABEL: @concat
func.func @concat(%in0: tensor<2xf32>, %in1: tensor<3xf32>) {
  // CHECK: mge.concat %{{.*}}, %{{.*}} {axis = 0} : (tensor<2xf32>, tensor<3xf32>) -> tensor<5xf32>
  %out = mge.concat %in0, %in1 {axis = 0} : (tensor<2xf32>, tensor<3xf32>) -> tensor<5xf32>
  func.return
}

// CHECK-LABEL: @repeat
func.func @repeat(%inp: tensor<2xf32>) {
  // CHECK: mge.repeat %{{.*}} {repeats = 2, axis = 0} : (tensor<2xf32>) -> tensor<4xf32>
  %out = mge.repeat %inp {repeats = 2, axis = 0} : (tensor<2xf32>) -> tensor<4xf32>
  func.return
}

// CHECK-LABEL: @tile
func.func @tile(%inp: tensor<2xf32>) {
  // CHECK: mge.tile %{{.*}} {reps = [3]} : (tensor<2xf32>) -> tensor<6xf32>
  %out = mge.tile %inp {reps = [3]} : (tensor<2xf32>) -> tensor<6xf32>
  func.return
}

// CHECK-LABEL: @iota
func.func @iota() {
  // CHECK: mge.iota {shape = [3, 4], axis = 1, dtype = bf16, start = 0.5, step = 1.0e-20} : () -> tensor<3x4xbf16>
  %out = mge.iota {shape = [3, 4], axis = 1, dtype = bf16, start = 0.5, step = 1.0e-20} : () -> tensor<3x4xbf16>
  func.return
}
