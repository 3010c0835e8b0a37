"""Records, templates, token ids and partitions: everything between a file and a training sample."""
