"""The vocabulary of the control plane: kinds, messages, subjects, reasons, labels and names.

Everything here is data and pure functions. A word that two services must spell alike is defined in
this package and nowhere else.
"""
