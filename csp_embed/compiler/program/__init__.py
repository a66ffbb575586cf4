"""The program file of a compiled operator: what it holds, promises and was compared with."""
