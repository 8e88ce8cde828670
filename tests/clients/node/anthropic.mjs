// The Anthropic SDK.

import Anthropic from "@anthropic-ai/sdk";

import { collect, given, told, turned } from "./shared.mjs";

const failure = (error) =>
  error instanceof Anthropic.AnthropicError && {
    name: error.constructor.name,
    status: error.status ?? null,
    message: error.message,
    retry_after: error.headers?.get("retry-after") ?? null,
  };

function messages(settings) {
  const { url, key, patience } = settings;
  const sdk = new Anthropic({ baseURL: url, apiKey: key, maxRetries: 0, timeout: patience });

  async function streamed(asked, seen) {
    const stream = sdk.messages.stream(asked);
    stream.on("text", (text) => seen.push(text));
    return stream.finalMessage();
  }

  return {
    ask: ({ ask }) => {
      const seen = [];
      return told(seen, failure, async () => {
        const asked = body(ask, settings);
        const message = await (ask.stream ? streamed(asked, seen) : sdk.messages.create(asked));
        const of = (type) => message.content.filter((block) => block.type === type);
        const { usage } = message;
        const read = usage.cache_read_input_tokens;
        return {
          text: of("text")
            .map((block) => block.text)
            .join(""),
          finish: message.stop_reason,
          turn: message.content.map(({ citations, parsed, ...block }) => given(block)),
          thoughts: of("thinking")
            .map((block) => block.thinking)
            .join(""),
          calls: of("tool_use").map(({ id, name, input }) => ({ id, name, arguments: input })),
          usage: {
            input: usage.input_tokens + (read ?? 0) + (usage.cache_creation_input_tokens ?? 0),
            output: usage.output_tokens,
            cached: read,
            reasoning: usage.output_tokens_details?.thinking_tokens,
          },
          refused: message.stop_reason === "refusal",
          pieces: seen.length,
          model: message.model,
        };
      });
    },
    models: () => collect(sdk.models.list({ limit: 1000 }), (model) => model.id),
    model: async ({ name }) => (await sdk.models.retrieve(name)).id,
    count: async ({ model, text }) =>
      (await sdk.messages.countTokens({ model, messages: [{ role: "user", content: text }] })).input_tokens,
  };
}

const body = ({ model, history, tools, think, schema, limit }, { room, budget }) =>
  given({
    model,
    max_tokens: limit ?? room,
    messages: turned(history, {
      turn: (content) => [{ role: "assistant", content }],
      results: (results) => [
        {
          role: "user",
          content: results.map(({ id, text }) => ({ type: "tool_result", tool_use_id: id, content: text })),
        },
      ],
      user: (text, images) => [
        {
          role: "user",
          content: [
            { type: "text", text },
            ...images.map((data) => ({ type: "image", source: { type: "base64", media_type: "image/png", data } })),
          ],
        },
      ],
    }),
    tools: tools.length
      ? tools.map(({ name, description, schema: input_schema }) => ({ name, description, input_schema }))
      : null,
    thinking: think ? { type: "enabled", budget_tokens: budget } : null,
    output_config: schema ? { format: { type: "json_schema", schema } } : null,
  });

export const clients = { messages };
