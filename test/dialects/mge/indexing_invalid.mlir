// RUN: mgec-opt %s --verify-diagnostics --split-input-file | filecheck %s

// CHECK: take: indices has dtype float32, which is not supported
func.func @f(%inp: tensor<4x3xf32>, %indices: tensor<4x3xf32>) {
  %out = mge.take %inp, %indices : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<4x3xf32>, %indices: tensor<2xi32>) {
  %out = mge.take %inp, %indices {axis = 2} : (tensor<4x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take: axis 0 has size 0 but there are indices into it
func.func @f(%inp: tensor<0x3xf32>, %indices: tensor<2xi32>) {
  %out = mge.take %inp, %indices : (tensor<0x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take_grad: d_out has dtype bool, which is not supported
func.func @f(%d_out: tensor<2x3xi1>, %indices: tensor<2xi32>) {
  %out = mge.take_grad %d_out, %indices {shape = [4, 3]} : (tensor<2x3xi1>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take_grad: indices has dtype float32, which is not supported
func.func @f(%d_out: tensor<2x3xf32>, %indices: tensor<4x3xf32>) {
  %out = mge.take_grad %d_out, %indices {shape = [4, 3]} : (tensor<2x3xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take_grad: shape (4, -3) has a negative size
func.func @f(%d_out: tensor<2x3xf32>, %indices: tensor<2xi32>) {
  %out = mge.take_grad %d_out, %indices {shape = [4, -3]} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take_grad: axis 2 is out of range for rank 2
func.func @f(%d_out: tensor<2x3xf32>, %indices: tensor<2xi32>) {
  %out = mge.take_grad %d_out, %indices {shape = [4, 3], axis = 2} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take_grad: axis 0 has size 0 but there are indices into it
func.func @f(%d_out: tensor<2x3xf32>, %indices: tensor<2xi32>) {
  %out = mge.take_grad %d_out, %indices {shape = [0, 3]} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: take_grad: d_out has shape (2, 3) but a take from (4, 5) has shape (2, 5)
func.func @f(%d_out: tensor<2x3xf32>, %indices: tensor<2xi32>) {
  %out = mge.take_grad %d_out, %indices {shape = [4, 5]} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: gather: inp has rank 2 but index has rank 1
func.func @f(%inp: tensor<4x3xf32>, %index: tensor<2xi32>) {
  %out = mge.gather %inp, %index {axis = 0} : (tensor<4x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: gather: index has dtype float32, which is not supported
func.func @f(%inp: tensor<4x3xf32>, %index: tensor<4x3xf32>) {
  %out = mge.gather %inp, %index {axis = 0} : (tensor<4x3xf32>, tensor<4x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: gather: index has size 5 on axis 1 but inp has size 3
func.func @f(%inp: tensor<4x3xf32>, %index: tensor<2x5xi32>) {
  %out = mge.gather %inp, %index {axis = 0} : (tensor<4x3xf32>, tensor<2x5xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: gather: axis -1 is out of range for rank 2
func.func @f(%inp: tensor<4x3xf32>, %index: tensor<2x5xi32>) {
  %out = mge.gather %inp, %index {axis = -1} : (tensor<4x3xf32>, tensor<2x5xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: gather: axis 0 has size 0 but there are indices into it
func.func @f(%inp: tensor<0x3xf32>, %index: tensor<2x3xi32>) {
  %out = mge.gather %inp, %index {axis = 0} : (tensor<0x3xf32>, tensor<2x3xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: scatter: inp is float32 but source is int8
func.func @f(%inp: tensor<4x3xf32>, %index: tensor<2x3xi32>, %source: tensor<2x3xi8>) {
  %out = mge.scatter %inp, %index, %source {axis = 0} : (tensor<4x3xf32>, tensor<2x3xi32>, tensor<2x3xi8>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: scatter: index has shape (2, 3) but source has shape (1, 3)
func.func @f(%inp: tensor<4x3xf32>, %index: tensor<2x3xi32>, %source: tensor<1x3xf32>) {
  %out = mge.scatter %inp, %index, %source {axis = 0} : (tensor<4x3xf32>, tensor<2x3xi32>, tensor<1x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: scatter_add: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<4xi1>, %index: tensor<2xi32>, %source: tensor<2xi1>) {
  %out = mge.scatter_add %inp, %index, %source {axis = 0} : (tensor<4xi1>, tensor<2xi32>, tensor<2xi1>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: one_hot: indices has dtype float32, which is not supported
func.func @f(%indices: tensor<4x3xf32>) {
  %out = mge.one_hot %indices {num_classes = 3} : (tensor<4x3xf32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: one_hot: num_classes is -3, but cannot be negative
func.func @f(%indices: tensor<2xi32>) {
  %out = mge.one_hot %indices {num_classes = -3} : (tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// -----

// CHECK: sort: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %out, %indices = mge.sort %inp {axis = 0} : (tensor<2xi1>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  func.return
}

// -----

// CHECK: sort: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<4x3xf32>) {
  %out, %indices = mge.sort %inp {axis = 2} : (tensor<4x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  func.return
}

// -----

// CHECK: topk: inp has dtype bool, which is not supported
func.func @f(%inp: tensor<2xi1>) {
  %out, %indices = mge.topk %inp {k = 1, axis = 0} : (tensor<2xi1>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  func.return
}

// -----

// CHECK: topk: axis 2 is out of range for rank 2
func.func @f(%inp: tensor<4x3xf32>) {
  %out, %indices = mge.topk %inp {k = 1, axis = 2} : (tensor<4x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  func.return
}

// -----

// CHECK: topk: k is 4 but axis 1 has size 3
func.func @f(%inp: tensor<4x3xf32>) {
  %out, %indices = mge.topk %inp {k = 4, axis = 1} : (tensor<4x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  func.return
}

// -----

// CHECK: mge.gather: result type is tensor<7xf32>, expected tensor<2x1xf32>
func.func @f(%inp: tensor<2x3xf32>, %index: tensor<2x1xi32>) {
  %out = mge.gather %inp, %index {axis = 1} : (tensor<2x3xf32>, tensor<2x1xi32>) -> tensor<7xf32>
  func.return
}
