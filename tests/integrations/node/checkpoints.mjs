// Verify checkpoints and proofs with what sigstore's clients verify Rekor's with; read JSON, write one answer each.

import { createHash, createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { verifyCheckpoint } from "@sigstore/verify/dist/tlog/checkpoint.js";
import { verifyMerkleInclusion } from "@sigstore/verify/dist/tlog/merkle.js";

const ED25519 = Buffer.from("302a300506032b6570032100", "hex"); // what stands before the 32 bytes in a SPKI

function log(vkey) {
  const [name, shown, ...rest] = vkey.split("+");
  const key = rest.join("+"); // base 64 may hold a plus sign
  const raw = Buffer.from(key, "base64");
  const hash = createHash("sha256").update(`${name}\n`).update(raw).digest();
  if (raw[0] !== 1 || hash.subarray(0, 4).toString("hex") !== shown) throw new Error("not a key of this form");
  const publicKey = createPublicKey({ key: Buffer.concat([ED25519, raw.subarray(1)]), format: "der", type: "spki" });
  return { logID: hash, baseURL: name, publicKey };
}

function verified({ vkey, proof, line }) {
  const [head, ...rest] = proof.split("\n\n");
  const [, index, ...hashes] = head.split("\n");
  const inclusionProof = {
    logIndex: index.replace("index ", ""),
    hashes: hashes.map((hash) => Buffer.from(hash, "base64")),
    checkpoint: { envelope: rest.join("\n\n") },
  };
  try {
    const entry = { inclusionProof, canonicalizedBody: Buffer.from(line, "base64") };
    const checkpoint = verifyCheckpoint(entry, [log(vkey)]);
    verifyMerkleInclusion(entry, checkpoint);
    return { origin: checkpoint.origin, size: Number(checkpoint.logSize), root: checkpoint.logHash.toString("base64") };
  } catch (error) {
    return { refused: error.message };
  }
}

console.log(JSON.stringify(JSON.parse(readFileSync(0, "utf8")).map(verified)));
