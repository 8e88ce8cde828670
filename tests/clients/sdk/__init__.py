"""Client libraries that somebody else wrote, behind one way to ask."""

from .anthropic_messages import AnthropicMessages
from .ask import Answer, Ask, Call, Client, Failure, Tool, Usage, results, user
from .google_genai import GoogleGenAi
from .langchain import LangChainAnthropic, LangChainGoogle, LangChainOllama, LangChainOpenAi, LangChainResponses
from .node import (
    AiAnthropic,
    AiGoogle,
    AiOpenAi,
    AiOpenAiCompatible,
    NodeAnthropic,
    NodeGoogle,
    NodeOllama,
    NodeOpenAiChat,
    NodeOpenAiResponses,
    Process,
)
from .ollama_chat import Ollama
from .openai_chat import OpenAiChat
from .openai_responses import OpenAiResponses

CLIENTS: dict[str, type[Client]] = {
    client.name: client
    for client in (
        OpenAiChat,
        NodeOpenAiChat,
        LangChainOpenAi,
        AiOpenAiCompatible,
        OpenAiResponses,
        NodeOpenAiResponses,
        LangChainResponses,
        AiOpenAi,
        AnthropicMessages,
        NodeAnthropic,
        LangChainAnthropic,
        AiAnthropic,
        GoogleGenAi,
        NodeGoogle,
        LangChainGoogle,
        AiGoogle,
        Ollama,
        NodeOllama,
        LangChainOllama,
    )
}

__all__ = ["CLIENTS", "Answer", "Ask", "Call", "Client", "Failure", "Process", "Tool", "Usage", "results", "user"]
