"""Word overlap between texts: samples and passages against test items, samples against each other."""
