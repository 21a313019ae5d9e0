"""pruner"""
