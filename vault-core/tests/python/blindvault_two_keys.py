"""Crafts a GCM ciphertext and tag that verify under two keys, as any holder of both keys can.

GHASH is linear in each ciphertext block (SP 800-38D section 6.4), so of two ciphertext blocks the second can be
solved for such that both keys give the same tag.
"""

import struct

from blindvault_format import aes_block

R = 0xE1 << 120


def multiply(x, y):
    """The product in GCM's field (SP 800-38D algorithm 1)."""
    z = 0
    for i in range(127, -1, -1):
        if (x >> i) & 1:
            z ^= y
        y = (y >> 1) ^ (R if y & 1 else 0)
    return z


def inverse(x):
    """x^(2^128 - 2)."""
    result, power = 1 << 127, x
    for _ in range(127):
        power = multiply(power, power)
        result = multiply(result, power)
    return result


def ghash(h, data):
    y = 0
    for at in range(0, len(data), 16):
        y = multiply(y ^ int.from_bytes(data[at : at + 16], "big"), h)
    return y


def two_key_body(keys, nonce, aad):
    """ciphertext (32 bytes) ‖ tag that AES-256-GCM accepts under both keys."""
    hs = [int.from_bytes(aes_block(k, bytes(16)), "big") for k in keys]
    masks = [int.from_bytes(aes_block(k, nonce + b"\x00\x00\x00\x01"), "big") for k in keys]
    first = b"\x42" * 16
    lengths = struct.pack(">QQ", 8 * len(aad), 8 * 32)
    blocks = lambda second: aad + bytes(-len(aad) % 16) + first + second + lengths
    # tag_i = mask_i + GHASH_i(second = 0) + second·h_i²; equal tags give one linear equation in `second`.
    fixed = [m ^ ghash(h, blocks(bytes(16))) for m, h in zip(masks, hs)]
    squares = [multiply(h, h) for h in hs]
    second = multiply(fixed[0] ^ fixed[1], inverse(squares[0] ^ squares[1])).to_bytes(16, "big")
    tags = [m ^ ghash(h, blocks(second)) for m, h in zip(masks, hs)]
    assert tags[0] == tags[1]
    return first + second + tags[0].to_bytes(16, "big")
