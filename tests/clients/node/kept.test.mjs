// Answers that a vendor keeps, with the OpenAI SDK for Node.js. Started by ../test_kept_answers.py.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: `${process.env.GATEWAY_URL}/v1`, apiKey: "sk-anything", maxRetries: 0 });
const model = process.env.MODEL;

test("an answer is read, listed, streamed again and deleted", async () => {
  const made = await client.responses.create({ model, input: "one", store: true });
  const read = await client.responses.retrieve(made.id);
  assert.equal(read.output_text, "answer to one");
  assert.equal(read.model, model);
  const items = await client.responses.inputItems.list(made.id);
  assert.equal(items.data[0].content[0].text, "one");
  const numbers = [];
  const stream = await client.responses.retrieve(made.id, { stream: true, starting_after: 3 });
  for await (const event of stream) numbers.push(event.sequence_number);
  assert.deepEqual(numbers, [4, 5, 6, 7]);
  await client.responses.delete(made.id);
  await assert.rejects(client.responses.retrieve(made.id), OpenAI.NotFoundError);
});

test("an answer in the background is cancelled", async () => {
  const made = await client.responses.create({ model, input: "long", background: true, store: true });
  assert.equal(made.status, "queued");
  assert.equal((await client.responses.cancel(made.id)).status, "cancelled");
});
