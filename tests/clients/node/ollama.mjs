// Ollama's client.

import { Ollama } from "ollama";

import { given, told, turned } from "./shared.mjs";

const failure = (error) =>
  error instanceof Error && { name: error.name, status: error.status_code ?? null, message: error.message };

function chat({ url, key }) {
  const sdk = new Ollama({ host: url, headers: { authorization: `Bearer ${key}` } });

  return {
    ask: ({ ask }) => {
      const seen = [];
      return told(seen, failure, async () => {
        const [thoughts, calls] = [[], []];
        let last;
        const asked = request(ask);
        for await (last of ask.stream ? await sdk.chat({ ...asked, stream: true }) : [await sdk.chat(asked)]) {
          if (last.message.content) seen.push(last.message.content);
          thoughts.push(last.message.thinking ?? "");
          calls.push(...(last.message.tool_calls ?? []));
        }
        const text = seen.join("");
        return {
          text,
          finish: last.done_reason,
          turn: {
            role: "assistant",
            content: text,
            ...(thoughts.some(Boolean) && { thinking: thoughts.join("") }),
            ...(calls.length && { tool_calls: calls }),
          },
          thoughts: thoughts.join(""),
          calls: calls.map(({ function: { name, arguments: args } }) => ({ id: null, name, arguments: args })),
          usage: { input: last.prompt_eval_count, output: last.eval_count },
          pieces: seen.length,
          model: last.model,
        };
      });
    },
    models: async () => (await sdk.list()).models.map((model) => model.model),
    model: async ({ name }) => {
      const shown = await sdk.show({ model: name });
      if (!shown.capabilities.includes("completion")) throw new TypeError(`it cannot chat: ${shown.capabilities}`);
      return name;
    },
  };
}

const request = ({ model, history, tools, think, schema, limit }) =>
  given({
    model,
    messages: turned(history, {
      turn: (turn) => [turn],
      results: (results) => results.map(({ name, text }) => ({ role: "tool", tool_name: name, content: text })),
      user: (text, images) => [{ role: "user", content: text, ...(images.length && { images }) }],
    }),
    tools: tools.length
      ? tools.map(({ name, description, schema: parameters }) => ({
          type: "function",
          function: { name, description, parameters },
        }))
      : null,
    think: think ? true : null,
    format: schema,
    options: limit ? { num_predict: limit } : null,
  });

export const clients = { chat };
