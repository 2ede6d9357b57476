"""The platform's vocabulary: plain typed values and the rules between them. No I/O.

The wire's messages are these same types, so client and server cannot drift apart.
"""
