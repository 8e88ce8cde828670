// What the SDKs make of a stream, without what is not there; the class of an error if that is how it ended.
// `../stream_readers.py` has the same.

import Anthropic from "@anthropic-ai/sdk";
import { GoogleGenAI } from "@google/genai";
import { Ollama } from "ollama";
import OpenAI from "openai";

const apiKey = "sk-anything";
const hi = [{ role: "user", content: "hi" }];

const openai = (url) => new OpenAI({ baseURL: `${url}/v1`, apiKey, maxRetries: 0, timeout: 10_000 });

const note = (seen, text) => (seen.text = (seen.text ?? "") + (text ?? ""));

const readers = {
  async "openai-raw"(url, model, seen) {
    for await (const chunk of await openai(url).chat.completions.create({ model, messages: hi, stream: true })) {
      for (const choice of chunk.choices) {
        note(seen, choice.delta.content);
        seen.finish = choice.finish_reason ?? seen.finish;
      }
    }
  },
  async "openai-helper"(url, model, seen) {
    const completion = await openai(url).chat.completions.stream({ model, messages: hi }).finalChatCompletion();
    const [{ message, finish_reason: finish }] = completion.choices;
    Object.assign(seen, { text: message.content, finish, thoughts: message.reasoning_content });
    seen.calls = (message.tool_calls ?? []).map((call) => [call.id, call.function.name, call.function.arguments]);
  },
  async "anthropic-helper"(url, model, seen) {
    const client = new Anthropic({ baseURL: url, apiKey, maxRetries: 0, timeout: 10_000 });
    const message = await client.messages.stream({ model, max_tokens: 9, messages: hi }).finalMessage();
    const parts = message.content.filter((part) => part);
    seen.text = parts.map((part) => part.text ?? "").join("");
    seen.finish = message.stop_reason;
    seen.calls = parts.filter((part) => part.type === "tool_use").map(({ id, name, input }) => [id, name, input ?? null]);
    seen.id = message.id;
  },
  async "responses-raw"(url, model, seen) {
    for await (const event of await openai(url).responses.create({ model, input: "hi", stream: true })) {
      if (event.type === "response.output_text.delta") note(seen, event.delta);
      if (["response.completed", "response.incomplete", "response.failed"].includes(event.type)) {
        seen.finish = event.response.status;
      }
      if (event.type === "error") seen.finish = "error";
    }
  },
  async "responses-helper"(url, model, seen) {
    const final = await openai(url).responses.stream({ model, input: "hi" }).finalResponse();
    Object.assign(seen, { text: final.output_text, finish: final.status });
    const calls = final.output.filter((item) => item.type === "function_call");
    seen.calls = calls.map((call) => [call.call_id, call.name, call.arguments]);
  },
  async "gemini-raw"(url, model, seen) {
    const client = new GoogleGenAI({ apiKey, vertexai: false, httpOptions: { baseUrl: url, timeout: 10_000 } });
    for await (const chunk of await client.models.generateContentStream({ model, contents: "hi" })) {
      for (const candidate of chunk.candidates ?? []) {
        for (const { text, functionCall: call } of candidate.content.parts) {
          note(seen, text);
          if (call) (seen.calls ??= []).push([call.name, call.args]);
        }
        seen.finish = candidate.finishReason;
      }
    }
  },
  async "ollama-raw"(url, model, seen) {
    for await (const part of await new Ollama({ host: url }).chat({ model, messages: hi, stream: true })) {
      note(seen, part.message.content);
      for (const { function: call } of part.message.tool_calls ?? []) (seen.calls ??= []).push([call.name, call.arguments]);
      seen.finish = part.done_reason;
    }
  },
};

async function observe(read, url, model) {
  const seen = {};
  try {
    await read(url, model, seen);
  } catch (error) {
    seen.error = error.constructor.name;
  }
  const isThere = (value) => value !== null && value !== undefined && value !== "" && value.length !== 0;
  return Object.fromEntries(Object.entries(seen).filter(([, value]) => isThere(value)));
}

const client = (read) => (settings) => ({ observe: ({ model }) => observe(read, settings.url, model) });

export const clients = Object.fromEntries(Object.entries(readers).map(([kind, read]) => [kind, client(read)]));
