"""The same arithmetic with less around it: gradients derived by hand, in NumPy, under the same SB3 classes.

SB3's own ``train`` and ``collect_rollouts`` spend most of a small network's time between the sums: in module calls, in
distribution objects, in autograd's graph, in an optimiser that visits one tensor after the other. Here the parameters
lie in one vector (:mod:`.flat`), the optimiser works on that vector (:mod:`.optimizers`), and the networks are lists of
matrices (:mod:`.mlp`). The torch parameters are views of the same memory, so SB3 sees, saves and loads what it always
does.
"""
