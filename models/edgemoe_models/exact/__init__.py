"""Arithmetic that gives the same bits on every machine: what ends in an integer graph is computed with nothing else.

IEEE 754 defines ``+ - * /``, the square root, rounding and comparisons to the bit; NumPy's elementwise loops do these
one by one. It defines neither the order of a sum, which BLAS kernels, thread counts and SIMD widths choose, nor
``exp`` and its like, which C libraries and NumPy's AVX variants approximate differently. So here

- products of matrices have operands on grids so coarse that every partial sum is exact, whatever the order
  (``edgemoe_models.exact.sums.product``), and sums are added as one fixed tree (``total``);
- functions are polynomials and tables whose entries are correctly rounded (``edgemoe_models.exact.functions``);
- equations and eigenvalues are eliminations and rotations of whole rows, in a fixed order
  (``edgemoe_models.exact.linear_algebra``).

NumPy only. docs/ptq.md says what is tested.
"""
