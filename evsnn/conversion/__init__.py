"""From a trained ReLU network to a spiking one. ``conversion`` is all of it (`convert`, `convert_model`).

``onnx``, from a model file to a `Graph`:

``importer``      model.onnx -> `Graph`
``model_file``    the file, its tensors and attributes, checked
``boundary``      where the network in the file begins and ends
``upgrade``       older forms of operators into the newest
``constants``     operators on constants
``admission``     what an operator may do in a network that is converted, and its one form
``refusals``      what to do about operators that are not converted
``operators``     what each ONNX operator computes, in NumPy
``dense``         convolution as matrix products
``windows``       where windows of convolutions and pools lie
``evaluate``      the source ANN's forward pass over a `Graph`

``lowering``, from a `Graph` to an `Ann` in evsnn's layers:

``lowering``      everything linear is folded, by the rules of ``weighted_rules``, ``elementwise_rules``,
                  ``pooling_rules`` and ``layout_rules``
``value``         a tensor while it is lowered: ``expression`` (sums of convolutions, each a ``convolution``)
                  and where its elements lie; ``state`` holds them, ``assembly`` the layers made so far
``ann``           `Ann`, and its forward pass

``balance``, from an `Ann` to a `Network`:

``options``       what is asked of a conversion; a `Recipe` for one T
``calibration``   calibration sets, larger than memory
``statistics``    how large activations are, measured or from batch norms
``thresholds``    firing thresholds from them, by a rule
``currents``      the input currents of a population, computed densely for many samples and steps
``correction``    layer-by-layer bias correction
``balance``       thresholds and corrections become a `Network`
``selection``     choosing a recipe by held-out inputs

``report``, what it costs:

``comparison``    the ANN and its SNN on the same inputs, layer by layer
``diagnosis``     what is wrong with a layer, in one line
``sweep``         what more steps bring and cost
``explanation``   what a conversion loses, where, why, and what it costs
``picture``       the explanation's figure
``validation``    ANN and spiking network on samples that took no part
``summary``       what the command says, and the file's metadata
"""
