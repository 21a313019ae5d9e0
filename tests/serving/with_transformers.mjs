// Runs in Node, where nothing of nash-search is: what transformers.js writes from folders of ours, as JSON.
//
//     node with_transformers.mjs NODE_MODULES QUESTION ANSWER
//
// Question: `longest` (new tokens), by name a folder, token ids padded to one length, and their mask.
// Answer: by name the greedy output of each row. (transformers.js 4 draws its beams by chance, so they are not asked.)
import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

const [modules, question, answer] = process.argv.slice(2);
const { AutoModelForSeq2SeqLM, Tensor, env } = createRequire(path.join(modules, "x.js"))("@huggingface/transformers");
const asked = JSON.parse(fs.readFileSync(question));
env.allowRemoteModels = false;
env.localModelPath = "/";
const tensor = (rows) => new Tensor("int64", BigInt64Array.from(rows.flat().map(BigInt)), [rows.length, rows[0].length]);
const found = {};
for (const [name, [folder, ids, mask]] of Object.entries(asked.folders)) {
  const model = await AutoModelForSeq2SeqLM.from_pretrained(folder, { dtype: "fp32" });
  const inputs = { inputs: tensor(ids), attention_mask: tensor(mask) };
  const written = await model.generate({ ...inputs, max_new_tokens: asked.longest });
  found[name] = written.tolist().map((row) => row.map(Number));
}
fs.writeFileSync(answer, JSON.stringify(found));
