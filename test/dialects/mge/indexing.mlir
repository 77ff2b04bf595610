// RUN: mgec-opt %s | mgec-opt | filecheck %s

// CHECK-LABEL: @take
func.func @take(%inp: tensor<5x3xf32>, %indices: tensor<2xi32>) {
  // CHECK: mge.take %{{.*}}, %{{.*}} : (tensor<5x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  %out = mge.take %inp, %indices : (tensor<5x3xf32>, tensor<2xi32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @take_2
func.func @take_2(%inp: tensor<5x3xf32>, %indices: tensor<2xi64>) {
  // CHECK: mge.take %{{.*}}, %{{.*}} {axis = 1} : (tensor<5x3xf32>, tensor<2xi64>) -> tensor<5x2xf32>
  %out = mge.take %inp, %indices {axis = 1} : (tensor<5x3xf32>, tensor<2xi64>) -> tensor<5x2xf32>
  func.return
}

// CHECK-LABEL: @take_grad
func.func @take_grad(%d_out: tensor<2x3xf32>, %indices: tensor<2xi32>) {
  // CHECK: mge.take_grad %{{.*}}, %{{.*}} {shape = [5, 3]} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<5x3xf32>
  %out = mge.take_grad %d_out, %indices {shape = [5, 3]} : (tensor<2x3xf32>, tensor<2xi32>) -> tensor<5x3xf32>
  func.return
}

// CHECK-LABEL: @gather
func.func @gather(%inp: tensor<5x3xf32>, %index: tensor<2x3xi32>) {
  // CHECK: mge.gather %{{.*}}, %{{.*}} {axis = 0} : (tensor<5x3xf32>, tensor<2x3xi32>) -> tensor<2x3xf32>
  %out = mge.gather %inp, %index {axis = 0} : (tensor<5x3xf32>, tensor<2x3xi32>) -> tensor<2x3xf32>
  func.return
}

// CHECK-LABEL: @scatter
func.func @scatter(%inp: tensor<5xf32>, %index: tensor<2xi32>, %source: tensor<2xf32>) {
  // CHECK: mge.scatter %{{.*}}, %{{.*}}, %{{.*}} {axis = 0} : (tensor<5xf32>, tensor<2xi32>, tensor<2xf32>) -> tensor<5xf32>
  %out = mge.scatter %inp, %index, %source {axis = 0} : (tensor<5xf32>, tensor<2xi32>, tensor<2xf32>) -> tensor<5xf32>
  func.return
}

// CHECK-LABEL: @scatter_add
func.func @scatter_add(%inp: tensor<5xf32>, %index: tensor<2xi32>, %source: tensor<2xf32>) {
  // CHECK: mge.scatter_add %{{.*}}, %{{.*}}, %{{.*}} {axis = 0} : (tensor<5xf32>, tensor<2xi32>, tensor<2xf32>) -> tensor<5xf32>
  %out = mge.scatter_add %inp, %index, %source {axis = 0} : (tensor<5xf32>, tensor<2xi32>, tensor<2xf32>) -> tensor<5xf32>
  func.return
}

// CHECK-LABEL: @one_hot
func.func @one_hot(%indices: tensor<5xui8>) {
  // CHECK: mge.one_hot %{{.*}} {num_classes = 3, dtype = i1} : (tensor<5xui8>) -> tensor<5x3xi1>
  %out = mge.one_hot %indices {num_classes = 3, dtype = i1} : (tensor<5xui8>) -> tensor<5x3xi1>
  func.return
}

// CHECK-LABEL: @sort
func.func @sort(%inp: tensor<5x3xf32>) {
  // CHECK: mge.sort %{{.*}} {axis = 1, descending = true} : (tensor<5x3xf32>) -> (tensor<5x3xf32>, tensor<5x3xi32>)
  %out, %indices = mge.sort %inp {axis = 1, descending = true} : (tensor<5x3xf32>) -> (tensor<5x3xf32>, tensor<5x3xi32>)
  func.return
}

// CHECK-LABEL: @topk
func.func @topk(%inp: tensor<5x3xf32>) {
  // CHECK: mge.topk %{{.*}} {k = 2, axis = 0} : (tensor<5x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  %out, %indices = mge.topk %inp {k = 2, axis = 0} : (tensor<5x3xf32>) -> (tensor<2x3xf32>, tensor<2x3xi32>)
  func.return
}
