"""A second reader of bundles, written from core/bundle/FORMAT.md alone.

It reads the test vectors and says where it comes to another result than they
want: so it shows that the page says all there is to know. It is slow and plain,
and of the compiled policy it looks at the kinds and environments only.

    python3 internal/check/vectors/reader.py core/bundle/testdata/vectors
"""

import base64
import hashlib
import json
import os
import re
import sys
from ipaddress import IPv4Address, IPv6Address


def sha256(b):
    return hashlib.sha256(b).digest()


# Ed25519, RFC 8032 section 5.1.

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
ROOT = pow(2, (P - 1) // 4, P)


def add(a, b):
    (x1, y1, z1, t1), (x2, y2, z2, t2) = a, b
    a, b = (y1 - x1) * (y2 - x2) % P, (y1 + x1) * (y2 + x2) % P
    c, d = 2 * t1 * t2 * D % P, 2 * z1 * z2 % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def multiply(n, point):
    out = (0, 1, 1, 0)
    while n:
        if n & 1:
            out = add(out, point)
        point = add(point, point)
        n >>= 1
    return out


def encode(point):
    x, y, z, _ = point
    inverse = pow(z, P - 2, P)
    x, y = x * inverse % P, y * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def decode(b):
    """The point that b encodes, or None if that is not its canonical encoding."""
    number = int.from_bytes(b, "little")
    y, sign = number % 2**255, number >> 255
    if y >= P:
        return None
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * ROOT % P
    if (x * x - x2) % P or x == 0 and sign:
        return None
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = decode((4 * pow(5, P - 2, P) % P).to_bytes(32, "little"))


def verify(key, message, signature):
    if len(signature) != 64:
        return False
    s = int.from_bytes(signature[32:], "little")
    if s >= L:
        return False
    a = decode(key)
    k = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % L
    minus = (P - a[0], a[1], 1, P - a[3])
    return encode(add(multiply(s, BASE), multiply(k, minus))) == signature[:32]


# Integers, lengths and fields.


class Refused(Exception):
    pass


def need(condition, why):
    if not condition:
        raise Refused(why)


class Reader:
    def __init__(self, b):
        self.b, self.at = b, 0

    def more(self):
        return self.at < len(self.b)

    def take(self, n):
        need(n <= len(self.b) - self.at, "truncated")
        self.at += n
        return self.b[self.at - n:self.at]

    def byte(self):
        return self.take(1)[0]

    def int(self):
        value, digits = 0, 0
        while True:
            c = self.byte()
            digits += 1
            need(digits <= 8 and not (digits == 1 and c == 0x80), "integer")
            value = value << 7 | c & 0x7f
            if c < 0x80:
                return value

    def bytes(self):
        return self.take(self.int())

    def end(self):
        need(not self.more(), "trailing bytes")


def fields(b):
    r, last = Reader(b), 0
    while r.more():
        number, value = r.int(), r.bytes()
        need(last < number <= 2**20 and value, "fields")
        last = number
        yield number, value


def uint(b):
    need(1 <= len(b) <= 8 and b[0], "uint")
    return int.from_bytes(b, "big")


# Notes.


def parse_key(text):
    """(name, key hash, public key)"""
    m = re.fullmatch(r"([^\s+]+)\+([0-9a-fA-F]{8})\+([A-Za-z0-9+/]+=*)", text)
    need(m, "key")
    try:
        data = base64.b64decode(m[3], validate=True)
    except ValueError:
        raise Refused("key")
    need(base64.b64encode(data).decode() == m[3] and len(data) == 33 and data[0] == 1, "key")
    hashed = sha256(m[1].encode() + b"\n" + data)[:4]
    need(hashed.hex() == m[2].lower(), "key hash")
    point = decode(data[1:])
    need(point and encode(multiply(8, point)) != encode((0, 1, 1, 0)), "point")
    return m[1], hashed, data[1:]


def open_note(raw, known):
    """(text, public keys that signed it)"""
    need(len(raw) <= 65536, "long")
    try:
        whole = raw.decode()
    except UnicodeDecodeError:
        raise Refused("UTF-8")
    need(not any(c < " " and c != "\n" for c in whole), "control character")
    cut = whole.rfind("\n\n")
    need(cut >= 0, "no signature")
    text, lines = whole[:cut + 1], whole[cut + 2:]
    need(lines.endswith("\n"), "line end")
    lines = lines[:-1].split("\n")
    need(len(lines) <= 100, "lines")
    parsed = []
    for line in lines:
        m = re.fullmatch(r"— ([^\s+]+) ([A-Za-z0-9+/]+={0,2})", line)
        need(m and len(m[2]) % 4 == 0, "signature line")
        data = base64.b64decode(m[2])
        need(len(data) >= 5, "signature line")
        parsed.append((m[1], data[:4], data[4:]))
    seen, signed = set(), []
    for name, hashed, signature in parsed:
        for known_name, known_hash, key in known:
            if (name, hashed) != (known_name, known_hash) or (name, hashed) in seen:
                continue
            seen.add((name, hashed))
            need(verify(key, text.encode(), signature), "signature")
            if key not in signed:
                signed.append(key)
    need(signed, "nobody known has signed it")
    return text, signed


HASH = r"[0-9a-f]{64}"
NUMBER = r"0|[1-9][0-9]*"


def number(text):
    need(int(text) < 2**53, "number")
    return int(text)


def parse_policy_note(text):
    m = re.fullmatch(
        rf"keystile policy v1\nname (.+)\naudience (.+)\nversion ({NUMBER})\npolicy ({HASH})\n"
        r"((?:kind .+\n)+)((?:environment .+\n)+)((?:publisher .+\n)+)", text)
    need(m, "policy note")
    lists = []
    for i, word in (5, "kind"), (6, "environment"), (7, "publisher"):
        values = [line[len(word) + 1:] for line in m[i][:-1].split("\n")]
        need(len(set(values)) == len(values), "twice")
        lists.append(values)
    return dict(name=m[1], audience=m[2], version=number(m[3]), policy=m[4],
                kinds=lists[0], environments=lists[1], publishers=lists[2], text=text)


def parse_manifest(text):
    m = re.fullmatch(
        rf"keystile manifest v1\npolicy ({HASH})\nversion ({NUMBER})\nexpires ({NUMBER})\n"
        rf"keys ({NUMBER})\nroot ({HASH})\ndigest sha256\n", text)
    need(m, "manifest")
    out = dict(policy=m[1], version=number(m[2]), expires=number(m[3]), keys=number(m[4]), root=bytes.fromhex(m[5]), text=text)
    need(0 < out["expires"] - out["version"] <= 7 * 24 * 3600 * 1000, "life")
    return out


class Stage(Exception):
    """Where a bundle is refused."""


def at(stage, do, *args):
    try:
        return do(*args)
    except Refused as e:
        raise Stage(stage) from e


def open_policy_note(raw, trust):
    text, signed = open_note(raw, trust["signers"])
    need(len(signed) >= trust["threshold"], "signers")
    note = parse_policy_note(text)
    need(note["audience"] == trust["audience"] and trust["name"] in ("", note["name"]), "another's")
    return note


def open_manifest(raw, note):
    publishers = [parse_key(p) for p in note["publishers"]]
    text, signed = open_note(raw, publishers)
    manifest = parse_manifest(text)
    need(manifest["policy"] == sha256(note["text"].encode()).hex(), "another policy note")
    manifest["signed"], note["keys"] = signed, [p[2] for p in publishers]
    return manifest


def parse_state(raw):
    m = re.match(rf"keystile state v1\npolicy ({NUMBER})\nmanifest ({NUMBER})\n\n".encode(), raw)
    need(m, "state")
    n, rest = int(m[1]), raw[m.end():]
    need(n + int(m[2]) == len(rest), "state")
    return rest[:n], rest[n:]


def successor(note, manifest, last_note, last):
    """Why a bundle cannot follow another, or None."""
    if note["version"] < last_note["version"]:
        return "rollback"
    if note["version"] == last_note["version"] and note["text"] != last_note["text"]:
        return "forked"
    if not set(last["signed"]) & set(note["keys"]):
        return None
    if manifest["version"] < last["version"]:
        return "rollback"
    if manifest["version"] == last["version"] and manifest["text"] != last["text"]:
        return "forked"
    return None


# Compiled policy: the names in it.


def names(value):
    r = Reader(value)
    for _ in range(r.int()):
        yield dict(fields(r.bytes()))[1].decode()
    r.end()


def parse_policy(raw):
    need(raw[:2] == b"\x03\x01" and len(raw) <= 1 << 20, "policy")
    kinds = environments = ()
    for n, value in fields(raw[2:]):
        need(n % 2 == 0 or n in (1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21), "critical")
        if n == 7:
            kinds = list(names(value))
        elif n == 9:
            environments = list(names(value))
    return kinds, environments


# Key tree.

M = 64


class Node(Exception):
    """A node that is refused."""


class Key(Exception):
    """A key that is refused alone."""


def bits(d, start, n):
    return int.from_bytes(d, "big") >> (256 - start - n) & (1 << n) - 1 if n else 0


def parse_branch(b, depth, count):
    need(count > M and depth % 6 == 0 and len(b) <= 4096, "no branch belongs here")
    levels, r, parts, value = min(6, 256 - depth), Reader(b[2:]), [], 0
    while r.more():
        d, n, h = r.byte(), r.int(), r.take(32)
        need(1 <= d <= levels, "depth")
        width = 1 << levels - d
        need(value % width == 0 and value + width <= 1 << levels, "tiles")
        need((n == 0) == (h == bytes(32)), "empty part")
        need(n <= M or d == 6, "undivided")
        parts.append((d, value, n, h))
        value += width
    need(value == 1 << levels and sum(p[2] for p in parts) == count, "parts")

    def divided(d, start):
        for p in parts:
            if (p[0], p[1]) == (d, start):
                return p[2]
        half = 1 << levels - d - 1
        n = divided(d + 1, start) + divided(d + 1, start + half)
        need(n > M, "needless")
        return n

    divided(0, 0)
    return parts


def parse_leaf(b, depth, prefix, count, note):
    need(count <= M and len(b) <= 135170, "no leaf belongs here")
    r = Reader(b[2:])
    strings = [r.bytes() for _ in range(r.int())]
    need(all(1 <= len(s) <= 2048 for s in strings) and all(x < y for x, y in zip(strings, strings[1:])), "strings")
    need(r.int() == count, "count")
    digests = [r.take(32) for _ in range(count)]
    need(all(x < y for x, y in zip(digests, digests[1:])), "order")
    need(all(bits(d, 0, depth) == prefix for d in digests), "place")
    used = set()
    records = {}
    for d in digests:
        raw = r.bytes()
        need(len(raw) <= 2048, "long")
        records[d] = parse_body(raw, strings, used, note)
    r.end()
    need(len(used) == len(strings), "unused string")
    return records


def parse_body(raw, strings, used, note):
    r = Reader(raw)
    size = 32 + len(raw)

    def reference(r):
        nonlocal size
        i = r.int()
        need(i < len(strings), "reference")
        used.add(i)
        size += len(strings[i])
        return i

    status = r.byte()
    kind, environment = strings[reference(r)].decode(), strings[reference(r)].decode()
    key_id = r.bytes()
    need(1 <= status <= 3 and 1 <= len(key_id) <= 64, "status or ID")
    need(kind in note["kinds"] and environment in note["environments"], "kind or environment")
    out = dict(id=key_id, kind=kind, environment=environment, status=["active", "deprecated", "revoked"][status - 1])
    refusal = None
    for n, value in fields(raw[r.at:]):
        lists = []
        if n & 2:
            v, last = Reader(value), -1
            while v.more():
                i = reference(v)
                need(i > last, "references")
                last = i
                lists.append(strings[i])
        if n == 3:
            out["tenant"] = lists[0]
            refusal = refusal or len(lists) != 1 or len(lists[0]) > 128
        elif n in (5, 9):
            out[{5: "not_before", 9: "expires"}[n]] = uint(value)
        elif n in (7, 11, 15):
            out[{7: "scopes", 11: "referrers", 15: "endpoints"}[n]] = lists
        elif n == 13:
            out["ips"] = parse_prefixes(value)
        elif n == 17:
            v, limits = Reader(value), []
            while v.more():
                limits.append([v.int(), v.int()])
            need(all(a and b for a, b in limits), "limits")
            out["limits"] = limits
        elif n & 1:
            refusal = True
    identity = re.compile(rb'[!#-+\--\[\]-~]*')
    for s in [key_id, out.get("tenant", b"")] + out.get("scopes", []):
        refusal = refusal or not identity.fullmatch(s)
    for s in out.get("referrers", []):
        refusal = refusal or not re.fullmatch(rb"https?://(\*\.)?[a-z0-9.-]+(:\d+)?", s)
    for s in out.get("endpoints", []):
        refusal = refusal or not re.fullmatch(rb"([A-Z]+ )?/\S*", s)
    return None if refusal or size > 2048 else out


def parse_prefixes(value):
    r, last, out = Reader(value), b"", []
    while r.more():
        begin = r.at
        family, length = r.byte(), r.byte()
        need(family in (4, 6) and length <= {4: 32, 6: 128}[family], "prefix")
        size = {4: 4, 6: 16}[family]
        addr = r.take((length + 7) // 8).ljust(size, b"\0")
        need(bits(addr.rjust(32, b"\0"), 256 - 8 * size + length, 8 * size - length) == 0, "host bits")
        need(not (family == 6 and addr[:12] == bytes(10) + b"\xff\xff"), "mapped")
        need(value[begin:r.at] > last, "order")
        last = value[begin:r.at]
        out.append(f"{(IPv4Address if family == 4 else IPv6Address)(addr)}/{length}")
    return out


class Bundle:
    def __init__(self, pack, trust, vector):
        need_stage = lambda ok, stage: at(stage, need, ok, stage)
        need_stage(len(pack) >= 64 and pack[:16] == b"\x04\x01keystile pack\n", "pack")
        big = lambda a, n: int.from_bytes(pack[a:a + n], "big")
        lengths = [big(16, 4), big(20, 4), big(24, 4)]
        index, nodes = big(32, 8), big(40, 8)
        need_stage(lengths[0] <= 65536 and lengths[1] <= 65536 and lengths[2] <= 1 << 20, "pack")
        need_stage(index + 20 * nodes == len(pack) and 64 + sum(lengths) <= len(pack), "pack")
        note = pack[64:64 + lengths[0]]
        manifest = pack[64 + lengths[0]:64 + sum(lengths[:2])]
        policy = pack[64 + sum(lengths[:2]):64 + sum(lengths)]
        self.index = {}
        for i in range(nodes):
            a = index + 20 * i
            self.index[pack[a:a + 8]] = big(a + 8, 8), big(a + 16, 4)
        self.pack = pack

        self.note = at("policy-note", open_policy_note, note, trust)
        self.manifest = at("manifest", open_manifest, manifest, self.note)
        need_stage(sha256(policy).hex() == self.note["policy"], "policy")
        kinds, environments = at("policy", parse_policy, policy)
        need_stage(set(self.note["kinds"]) <= set(kinds) and set(self.note["environments"]) <= set(environments), "policy-note")
        if "after" in vector:
            try:
                last_note, last = parse_state(base64.b64decode(vector["after"][0]))
                last_note = open_policy_note(last_note, trust)
                last = open_manifest(last, last_note)
            except Refused:
                pass
            else:
                why = successor(self.note, self.manifest, last_note, last)
                need_stage(not why, why)
        now, skew, age = (int(vector[n][0]) for n in ("now", "clock_skew", "max_age"))
        need_stage(max(self.manifest["version"], self.note["version"]) <= now + skew, "future")
        need_stage(now < self.manifest["expires"], "expired")
        need_stage(not age or now - self.manifest["version"] <= age, "too-old")

    def node(self, h, depth, prefix, count):
        """A branch's parts, or a leaf's records."""
        try:
            need(h[:8] in self.index, "missing")
            offset, length = self.index[h[:8]]
            b = self.pack[offset:offset + length]
            need(len(b) == length and sha256(b) == h, "hash")
            need(len(b) >= 2 and b[1] == 1, "format")
            if b[0] == 1:
                return parse_branch(b, depth, count)
            need(b[0] == 2, "type")
            return parse_leaf(b, depth, prefix, count, self.note)
        except (Refused, UnicodeDecodeError) as e:
            raise Node(h.hex()) from e

    def find(self, d):
        h, depth, count = self.manifest["root"], 0, self.manifest["keys"]
        while True:
            n = self.node(h, depth, bits(d, 0, depth), count)
            if isinstance(n, dict):
                if d not in n:
                    return "absent"
                if n[d] is None:
                    return "key"
                return "found", n[d]
            levels = min(6, 256 - depth)
            value = bits(d, depth, levels)
            for below, start, count, h in n:
                if start <= value < start + (1 << levels - below):
                    depth += below
                    break
            if count == 0:
                return "absent"

    def walk(self, h=None, depth=0, prefix=0, count=None, ids=None):
        if h is None:
            h, count, ids = self.manifest["root"], self.manifest["keys"], set()
        n = self.node(h, depth, prefix, count)
        if isinstance(n, dict):
            for rec in n.values():
                if rec is None or rec["id"] in ids:
                    raise Key
                ids.add(rec["id"])
            return
        levels = min(6, 256 - depth)
        for below, start, count, h in n:
            if count:
                self.walk(h, depth + below, prefix << below | start >> levels - below, count, ids)


def plain(value):
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, list):
        return [plain(v) for v in value]
    return value


def check(path):
    """What is different from what the vector wants."""
    with open(path, "rb") as f:
        head, _, pack = f.read().partition(b"\n\n")
    first, *lines = head.decode().split("\n")
    assert first == "keystile vector v1"
    vector = {}
    for line in lines:
        name, _, value = line.partition(": ")
        vector.setdefault(name, []).append(value)
    one = lambda name: vector.get(name, [""])[0]

    def trust():
        signers = [parse_key(s) for s in vector["signer"]]
        threshold = int(one("threshold"))
        need(1 <= threshold <= len(signers), "threshold")
        need(len({s[2] for s in signers}) == len(signers), "one key under two names")
        return dict(signers=signers, threshold=threshold, name=one("name"), audience=one("audience"))

    try:
        bundle = Bundle(pack, at("trust", trust), vector)
        stage = "good"
    except Stage as e:
        stage = str(e)
    if stage != one("expect"):
        return [f"{stage}, not {one('expect')}"]
    wrong = []
    for line in vector.get("find", []):
        digest, want = line.split(" ", 1)
        try:
            got = bundle.find(bytes.fromhex(digest))
        except Node as e:
            got = "node " + str(e)
        if isinstance(got, tuple):
            same = want.startswith("found ") and json.loads(want[6:]) == {k: plain(v) for k, v in got[1].items()}
        else:
            same = got == want
        if not same:
            wrong.append(f"{digest}: {got}, not {want}")
    if one("walk"):
        try:
            bundle.walk()
            walked = "good"
        except (Node, Key):
            walked = "refused"
        if walked != one("walk"):
            wrong.append(f"reading it all: {walked}, not {one('walk')}")
    return wrong


def main(folder):
    failed = 0
    files = sorted(os.listdir(folder))
    for name in files:
        for w in check(os.path.join(folder, name)):
            failed += 1
            print(f"{name}: {w}")
    print(f"{len(files)} vectors, {failed} differences")
    return failed or not files


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1]) else 0)
