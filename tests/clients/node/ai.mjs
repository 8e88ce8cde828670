// The AI SDK of Vercel, with its package for each vendor.

import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { AISDKError, APICallError, generateText, jsonSchema, Output, streamText, tool } from "ai";

import { dataUrl, given, told, turned } from "./shared.mjs";

globalThis.AI_SDK_LOG_WARNINGS = false;

const failure = (error) => {
  if (APICallError.isInstance(error))
    return {
      name: error.name,
      status: error.statusCode ?? null,
      message: error.message,
      retry_after: error.responseHeaders?.["retry-after"] ?? null,
    };
  if (AISDKError.isInstance(error)) return { name: error.name, message: error.message };
  // Errors within a stream are handed out as the vendor wrote them.
  if (error instanceof StreamFailure) return { name: "stream", message: error.message };
  return null;
};

class StreamFailure extends Error {}

/** `provider` makes models; `options` are those for thoughts. */
const client = (provider, options) => (settings) => ({
  ask: ({ ask }) => {
    const seen = [];
    return told(seen, failure, async () => {
      const model = provider(settings)(ask.model);
      const request = { ...body(ask), model, maxRetries: 0, providerOptions: options(ask, settings) };
      const result = ask.stream ? await streamed(request, seen) : await generateText(request);
      const { usage } = result;
      return {
        text: result.text,
        finish: result.finishReason,
        turn: result.response.messages,
        thoughts: result.reasoningText ?? "",
        calls: result.toolCalls.map(({ toolCallId: id, toolName: name, input }) => ({ id, name, arguments: input })),
        usage: {
          input: usage.inputTokens,
          output: usage.outputTokens,
          cached: usage.inputTokenDetails.cacheReadTokens,
          reasoning: usage.outputTokenDetails.reasoningTokens,
        },
        refused: result.finishReason === "content-filter",
        pieces: seen.length,
      };
    });
  },
});

async function streamed(request, seen) {
  const stream = streamText({ ...request, onError: () => {} });
  for await (const part of stream.fullStream) {
    if (part.type === "text-delta") seen.push(part.text);
    if (part.type === "error") throw AISDKError.isInstance(part.error) ? part.error : streamFailure(part.error);
  }
  const names = ["text", "finishReason", "reasoningText", "toolCalls", "usage", "response"];
  const values = await Promise.all(names.map((name) => stream[name]));
  return Object.fromEntries(names.map((name, at) => [name, values[at]]));
}

const streamFailure = (error) => new StreamFailure(error?.message ?? JSON.stringify(error));

const body = ({ history, tools, schema, limit }) =>
  given({
    messages: turned(history, {
      turn: (messages) => messages,
      results: (results) => [
        {
          role: "tool",
          content: results.map(({ id: toolCallId, name: toolName, text: value }) => ({
            type: "tool-result",
            toolCallId,
            toolName,
            output: { type: "text", value },
          })),
        },
      ],
      user: (text, images) => [
        {
          role: "user",
          content: [
            { type: "text", text },
            ...images.map((image) => ({ type: "image", image: dataUrl(image), mediaType: "image/png" })),
          ],
        },
      ],
    }),
    tools: tools.length
      ? Object.fromEntries(
          tools.map(({ name, description, schema: parameters }) => [
            name,
            tool({ description, inputSchema: jsonSchema(parameters) }),
          ]),
        )
      : null,
    output: schema ? Output.object({ schema: jsonSchema(schema) }) : null,
    maxOutputTokens: limit,
  });

const when = (asked, options) => (asked ? options : {});

export const clients = {
  "openai-compatible": client(
    ({ url, key }) =>
      createOpenAICompatible({
        name: "gateway",
        baseURL: `${url}/v1`,
        apiKey: key,
        includeUsage: true,
        supportsStructuredOutputs: true,
      }),
    ({ think }) => ({ gateway: when(think, { reasoningEffort: "medium" }) }),
  ),
  openai: client(
    ({ url, key }) => createOpenAI({ baseURL: `${url}/v1`, apiKey: key }),
    ({ think }) => ({
      openai: {
        store: false,
        // It knows by their names which models think.
        ...when(think, {
          forceReasoning: true,
          reasoningEffort: "medium",
          reasoningSummary: "auto",
          include: ["reasoning.encrypted_content"],
        }),
      },
    }),
  ),
  anthropic: client(
    ({ url, key }) => createAnthropic({ baseURL: `${url}/v1`, apiKey: key }),
    ({ think }, { budget }) => ({
      anthropic: when(think, { thinking: { type: "enabled", budgetTokens: budget } }),
    }),
  ),
  google: client(
    ({ url, key }) => createGoogleGenerativeAI({ baseURL: `${url}/v1beta`, apiKey: key }),
    ({ think }, { budget }) => ({
      google: when(think, { thinkingConfig: { includeThoughts: true, thinkingBudget: budget } }),
    }),
  ),
};
