"""CET, capacity x expressivity x trainability of a network, in closed form from its graph. No torch.

`score.cet` scores one architecture, `score.cet_pool` many side by side with the same bits; ``docs/cet.md`` derives the
score. The way from an architecture to its score::

    Architecture                blocks, input size, classes
        | tracing               runs each sub-layer once with symbols in place of tensors
        v
    Plan                        stages that add a source, each reading a Mix of sources; memoised, equal ones are one
        | score                 a PlanSequence: plans with their widths and resolutions (PlacedPlan) and repetitions
        v
    Layout, PlacedLayout        the plans of B networks as tables, so that equal stages of all networks run together
        | propagation.forward   spectra, excess and linear part of every source     -> ForwardPass
        v
    TensorState                 behind the last sub-layer; a gradient that is the same at all positions starts here
        | propagation.backward  spectra and excess of every gradient                -> BackwardPass
        v
    ConvColumns                 ranks, novelty and positions of each convolution that counts
        | terms                 sums over a network's convolutions
        v
    NetworkTerms, CetTerms      U, S, their entropies, P, W, E, D_f, D_b           -> ScoreValue

Chains without pooling take a short cut from their codes (`zeroshot_nas.chains`) to ``ConvColumns``: `combs` and `chain`
have the same rules for the few numbers that are left of their spectra, of many networks at once. `explain` follows the
long way for one network and lists its convolutions.

Glossary, in the order of that way:

- *source*: an independent random map that a stage adds; random weights make it independent of all that went in.
- *filter* (`filters`): the transfer function of skips and poolings in a row, as a polynomial in poolings.
- *mix*: a tensor as a sum of filtered sources. Source 0 is what enters the plan.
- *operation*, *stage*: a convolution, ReLU, lone batch norm, strided pooling, concatenation or merge; a stage is one
  that also knows the gradient which reaches it, as a mix of gradient sources.
- *traced convolution* (`plan.TracedConv`): any convolution of a sub-layer, dead ones among them.
- *pair*: two convolutions of one graph that may be the same map in part; *rivals* are all that are in a pair.
- *row* (`layout`): the place of a source in the table of all networks' sources.
- *mix table*, *stage group*, *tap pairs*: the mixes, the stages of one level and kind, and the kernels, as arrays.
- *spectrum* (`spectra`): a power spectrum on a torus of 16 x 16 displacements, 45 numbers by symmetry. Its mean is the
  *energy*.
- *excess* e of c channels with covariance C: 1 + e = c tr C^2 / (tr C)^2; c / (1 + e) is their effective number.
- *participation*, *patch rank*: effective number of inputs of one output value.
- *novelty* (`novelty`): the part of a convolution that no larger one on a parallel path repeats.
- *combs* (`combs`): the parts of a gradient that are equal at all positions 1, 2, 4, ... apart.
- *uses* U, *expressivity* S, *plain-equivalent depths* D_f and D_b: the terms of the score, see `terms.CetTerms`.
"""
