"""What the gateway's streams must look like, so that no SDK stumbles. Each check takes all bytes of one stream."""

from . import chat, gemini, messages, ollama, responses

FORMS = {
    "openai": chat.check,
    "responses": responses.check,
    "anthropic": messages.check,
    "gemini": gemini.check,
    "gemini-list": gemini.check_list,
    "ollama": ollama.check,
}
