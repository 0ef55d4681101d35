"""Trained results of architectures, from the files that NAS benchmarks are published in.

`zeroshot_nas.nasbench.base.load_table` reads a file into a `zeroshot_nas.nasbench.table.BenchmarkTable`, whatever its
format; each format is a file in ``readers``. ``load_figures`` reads tables without accuracies, such as latencies, and
`zeroshot_nas.nasbench.convert.convert` writes a table to a small file of ours.
"""
