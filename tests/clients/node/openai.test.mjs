// The OpenAI SDK for Node.js, against upstreams of its own dialect and, through translation, of the other.
// Started by ../test_node_sdk.py, which says in the environment where the gateway is.

import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const url = process.env.GATEWAY_URL;
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: "sk-anything", maxRetries: 0, timeout: 20_000 });
const user = (content) => [{ role: "user", content }];
const dot =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const tools = [
  {
    type: "function",
    function: {
      name: "weather",
      parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
    },
  },
  { type: "function", function: { name: "time", parameters: { type: "object", properties: {} } } },
];

for (const upstream of ["sim", "oa-node", "an-node"]) {
  test(`${upstream}: chat`, async () => {
    const model = `${upstream}/echo`;
    const answer = await client.chat.completions.create({ model, messages: user("hello there") });
    assert.equal(answer.model, model);
    assert.equal(answer.choices[0].message.content, "hello there");
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.ok(answer.usage.total_tokens > 0);
  });

  test(`${upstream}: stream`, async () => {
    const model = `${upstream}/echo-chunks-3`;
    for (const asked of [false, true]) {
      const options = asked ? { stream_options: { include_usage: true } } : {};
      const stream = await client.chat.completions.create({ model, messages: user("a b c"), stream: true, ...options });
      let text = "";
      const usages = [];
      for await (const chunk of stream) {
        text += chunk.choices[0]?.delta?.content ?? "";
        if (chunk.usage) usages.push(chunk.usage);
      }
      assert.equal(text, "a b c");
      assert.equal(usages.length, asked ? 1 : 0);
    }
  });

  test(`${upstream}: stream helper`, async () => {
    const runner = client.chat.completions.stream({ model: `${upstream}/echo-chunks-4`, messages: user("a b c d") });
    let pieces = 0;
    runner.on("content", () => (pieces += 1));
    const final = await runner.finalChatCompletion();
    assert.equal(final.choices[0].message.content, "a b c d");
    assert.ok(pieces > 1);
  });

  for (const calls of [1, 2]) {
    test(`${upstream}: ${calls} tool call(s), streamed and not`, async () => {
      const ask = { model: `${upstream}/tools-${calls}`, messages: user("go"), tools };
      const whole = (await client.chat.completions.create(ask)).choices[0];
      const streamed = (await client.chat.completions.stream(ask).finalChatCompletion()).choices[0];
      for (const choice of [whole, streamed]) {
        assert.equal(choice.finish_reason, "tool_calls");
        assert.deepEqual(
          choice.message.tool_calls.map((call) => call.function.name),
          ["weather", "time"].slice(0, calls),
        );
        for (const call of choice.message.tool_calls) JSON.parse(call.function.arguments || "{}");
      }
      const results = whole.message.tool_calls.map((call, at) => ({
        role: "tool",
        tool_call_id: call.id,
        content: `result ${at}`,
      }));
      const { content, tool_calls } = whole.message;
      const messages = [...ask.messages, { role: "assistant", content, tool_calls }, ...results];
      const answer = await client.chat.completions.create({ ...ask, messages });
      assert.match(answer.choices[0].message.content, /^The tool said:.*result 0/s);
    });
  }

  test(`${upstream}: runs tools by itself`, async () => {
    const runner = client.chat.completions.runTools({
      model: `${upstream}/tools-1`,
      messages: user("what time is it?"),
      tools: [
        {
          type: "function",
          function: { name: "time", parameters: { type: "object", properties: {} }, function: () => "half past nine" },
        },
      ],
    });
    assert.match(await runner.finalContent(), /half past nine/);
  });

  test(`${upstream}: image`, async () => {
    const content = [
      { type: "text", text: "what is this?" },
      { type: "image_url", image_url: { url: `data:image/png;base64,${dot}` } },
    ];
    const answer = await client.chat.completions.create({ model: `${upstream}/image`, messages: user(content) });
    assert.match(answer.choices[0].message.content, /1/);
  });
}

test("models", async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.ok(ids.length > 0);
  assert.equal((await client.models.retrieve(ids[0])).id, ids[0]);
});

test("errors have their classes", async () => {
  const failing = process.env.FAILING_NODE;
  const ask = (model, more = {}) => client.chat.completions.create({ model, messages: user("hi"), ...more });
  await assert.rejects(ask("no-such-model-anywhere"), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.equal(error.code, "model_not_found");
    return true;
  });
  await assert.rejects(ask("sim/echo", { messages: [] }), OpenAI.BadRequestError);
  await assert.rejects(ask(`${failing}/error-429-retry-50s`), (error) => {
    assert.ok(error instanceof OpenAI.RateLimitError);
    assert.ok(Number(error.headers.get("retry-after")) > 40);
    return true;
  });
  const limited = new OpenAI({ baseURL: `${url}/v1`, apiKey: process.env.LIMITED_KEY, maxRetries: 0 });
  await limited.chat.completions.create({ model: "sim/echo", messages: user("one") });
  await assert.rejects(
    limited.chat.completions.create({ model: "sim/echo", messages: user("two") }),
    OpenAI.RateLimitError,
  );
});

test("an error within a stream is thrown", async () => {
  const stream = await client.chat.completions.create({
    model: `${process.env.BREAKING_NODE}/echo-error-after-2`,
    messages: user("one two three four"),
    stream: true,
  });
  let text = "";
  await assert.rejects(async () => {
    for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  }, OpenAI.APIError);
  assert.match(text, /^one/);
});

test("the second account answers when the first cannot", async () => {
  const { data, response } = await client.chat.completions
    .create({ model: `${process.env.TWO_ACCOUNTS}/echo`, messages: user("served") })
    .withResponse();
  assert.equal(data.choices[0].message.content, "served");
  assert.equal(response.headers.get("x-omniroute-attempts"), "2");
});

test("a stream that is aborted ends", async () => {
  const stream = await client.chat.completions.create({
    model: "oa-node/echo-slow-50ms",
    messages: user("a b c d e f g h i j k l m n o p"),
    stream: true,
  });
  let chunks = 0;
  for await (const _ of stream) {
    chunks += 1;
    if (chunks === 3) stream.controller.abort();
  }
  assert.ok(chunks <= 5);
});

test("pictures", async () => {
  const answer = await client.images.generate({
    model: "oa-node/gpt-image-1.5",
    prompt: "a cat",
    response_format: "url",
  });
  assert.match(answer.data[0].url, /^data:image\/png;base64,/);
  assert.ok(answer.usage.output_tokens > 0);
});

test("pictures that are changed, and watched", async () => {
  const file = () => OpenAI.toFile(Buffer.from(dot, "base64"), "cat.png", { type: "image/png" });
  const model = "sim/gpt-image-1.5";
  const images = [await file(), await file()];
  const answer = await client.images.edit({ model, prompt: "a hat", image: images, mask: await file() });
  assert.match(answer.data[0].revised_prompt, /2 pictures of 140 bytes .*with a mask/);
  const events = [];
  const stream = await client.images.generate({ model, prompt: "a cat", stream: true, partial_images: 1 });
  for await (const event of stream) events.push(event.type);
  assert.deepEqual(events, ["image_generation.partial_image", "image_generation.completed"]);
});

test("recordings and speech", async () => {
  const spoken = await client.audio.speech.create({
    model: "oa-node/tts-1",
    voice: "alloy",
    input: "Hello there",
    response_format: "wav",
  });
  const sound = Buffer.from(await spoken.arrayBuffer());
  assert.equal(sound.subarray(0, 4).toString(), "RIFF");
  const ask = async (response_format) =>
    client.audio.transcriptions.create({
      file: await OpenAI.toFile(sound, "hello.wav", { type: "audio/wav" }),
      model: "oa-node/whisper-1",
      response_format,
    });
  const text = `I heard ${sound.length} bytes of wav`;
  assert.ok((await ask("json")).text.startsWith(text));
  assert.ok((await ask("text")).startsWith(text));
  const verbose = await ask("verbose_json");
  assert.equal(verbose.segments.length, 1);
  assert.ok(verbose.words.length > 5);
  assert.ok((await ask("srt")).startsWith("1\n00:00:00,000 --> "));
  assert.ok((await ask("vtt")).startsWith("WEBVTT"));
});

for (const upstream of ["sim", "up-openai", "up-gemini", "up-ollama"]) {
  test(`${upstream}: embeddings, in base64 as the library asks and as lists`, async () => {
    const request = { model: `${upstream}/embed-dims-64`, input: ["one", "two"] };
    const packed = await client.embeddings.create(request);
    const plain = await client.embeddings.create({ ...request, encoding_format: "float" });
    assert.equal(packed.model, request.model);
    for (const at of [0, 1]) {
      const [one, other] = [packed.data[at].embedding, plain.data[at].embedding];
      assert.deepEqual([packed.data[at].index, one.length, other.length], [at, 64, 64]);
      assert.ok(one.every((value, place) => Math.abs(value - other[place]) < 1e-6));
    }
  });
}
