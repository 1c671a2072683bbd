"""Texts held against each other, by their words: samples and passages against test items, samples against samples."""
