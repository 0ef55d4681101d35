"""The engine of a search; the strategies are in `zeroshot_nas.searchers`."""
