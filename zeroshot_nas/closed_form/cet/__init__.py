"""CET, capacity x expressivity x trainability of a graph: from its trace to its terms."""
