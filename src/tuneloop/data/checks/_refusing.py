"""How assistants refuse, and the phrases that tell which assistant wrote an answer."""

from __future__ import annotations

import re

OPENING = 250       # characters: who refuses does so at once
ENDING = 250

_CANNOT = (r"(?:can(?:no|['’]?)t|can\ not|won['’]?t|will\ not|am\ not\ (?:going|programmed|designed)"
           r"|must\ (?:decline|refuse)|(?:do\ not|don['’]t)\ (?:have|feel\ comfortable))")
_DO = (r"(?:help|assist|provid|fulfil|answer|support|comply|do\ that|continu|engag|creat|generat|writ|offer|giv|shar"
       r"|discuss|participat|encourag|recommend|suggest|condon|advis|tell|mak|guid|explain|respond|satisf|access)\w*")
_FAIR = r"(?:appropriate|ethical|acceptable|accurate|respectful|fair|okay|productive)"
_REFUSES = re.compile(rf"""
    (?:i['’]?m|i\ am|we['’]re|we\ are)\ (?:\w+\ )?sorry,?\ but
  | \bi\ apologi[sz]e,?\ but | \bmy\ apologies,?\ but | ^\s*sorry,?\ (?:but\ )?(?:i|we)\b
  | \b(?:i|we)(?:['’]m|\ am)?\ (?:\w+\ )?{_CANNOT}\ (?:\w+\ ){{0,4}}?{_DO}
  | \bi(?:['’]?m|\ am)\ (?:not\ able|unable)\ to\b
  | (?:not|n['’]t|against)\ (?:within\ )?my\ (?:programming|guidelines|ethical|principles|polic)
  | \bi\ must\ (?:\w+\ )?(?:clarify|challenge|decline|point\ out)
  | \bi\ (?:don['’]t|do\ not)\ (?:think|believe)\ (?:that\ )?it(?:['’]s|\ is)\ {_FAIR}
  | \bit(?:['’]s|\ is)\ (?:not|never)\ {_FAIR}
  | \bes\ tut\ mir\ leid,?\ (?:aber\ )?(?:ich|das|dabei|da)\b | \b(?:dabei|damit)\ kann\ ich\ (?:\w+\ )?nicht\ helfen
  | \bje\ suis\ désolée?,?\ mais | \bje\ ne\ (?:peux|suis)\ pas\ (?:en\ mesure|vous|fournir|répondre|aider|créer)
  | \blo\ siento,?\ pero | \bno\ puedo\ (?:ayudar|proporcionar|cumplir|responder)
  | \bmi\ dispiace,?\ ma | \bdesculpe?,?\ mas | \bsinto\ muito,?\ mas | \bhet\ spijt\ me,?\ maar
  | извините,?\ но | \bя\ не\ могу\ (?:помочь|предоставить|выполнить)
  | (?:抱歉|对不起|對不起)[，,]?(?:但是?|不过)?我?(?:无法|不能|没有|無法|沒有|不具备)
  | 申し訳(?:ありません|ございません)が
""", re.IGNORECASE | re.VERBOSE | re.MULTILINE)

_REFUSAL_SIGNS = (
    "sorry", "apolog", "cannot", "can not", "can't", "can’t", " cant ", "i won", "we won", "will not", "unable",
    "i'm not", "i’m not", "i am not", "i must", "we must", "not my", "against my", "within my", "i don", "we don",
    "i do not", "it's n", "it’s n", "it is n", "leid", "damit kann", "désol", "je ne", "lo siento", "no puedo",
    "dispiace", "desculp", "sinto muito", "het spijt", "извините", "не могу", "抱歉", "对不起", "對不起", "申し訳",
)
"""One of these stands in every refusal; to look for them first is ten times as fast."""

_BOILERPLATE = re.compile(r"""
    \b(?:as|i['’]?m\ (?:just\ )?|i\ am\ (?:just\ )?)\ ?an?\ (?:large\ |responsible\ |ethical\ )?
        (?:ai\b|artificial\ intelligence|language\ model|virtual\ assistant)
  | \b(?:as\ of\ )?my\ (?:last\ |latest\ )?(?:knowledge\ )?(?:update|cut-?off)\b | \bknowledge\ cut-?off\b
  | \b(?:trained|developed|created|made)\ by\ (?:openai|anthropic|google\ deepmind)\b | \bi['’]?m\ chatgpt\b
  | \bi\ (?:do\ not|don['’]t)\ have\ (?:personal\ |any\ )?(?:feelings|emotions|opinions|beliefs|preferences|experiences)
  | \bals\ (?:ein\ )?(?:ki\b|ki-|künstliche\ intelligenz|sprachmodell)
  | \ben\ tant\ qu(?:['’]|e\ )(?:ia\b|intelligence|modèle\ de)
  | \bcomo\ (?:una?\ |um\ )?(?:ia\b|inteligencia\ artificial|modelo\ de\ (?:lenguaje|linguagem))
  | \bcome\ (?:ia\b|modello\ linguistico) | \bкак\ (?:языковая\ модель|ии\b|искусственный)
  | 作为(?:一个|一名|一位|一款)?\ ?(?:ai|人工智能|语言模型|大型语言) | 身為(?:一個)?(?:ai|人工智慧)
  | (?:ai|人工知能|言語モデル)として
""", re.IGNORECASE | re.VERBOSE)

_BOILERPLATE_SIGNS = (
    "an ai", "large ai", "responsible ai", "ethical ai", "artificial intelligence", "language model",
    "virtual assistant", "update", "cutoff", "cut-off", "openai", "anthropic", "deepmind", "chatgpt", "feelings",
    "emotions", "opinions", "beliefs", "preferences", "experiences", "als ki", "als ein", "als künst",
    "als sprach", "en tant", "como ia", "como un", "como int", "como mod", "come ia", "come mod", "модель",
    "как ии", "искусств", "作为", "身為", "として",
)

_TAIL = re.compile(r"""
    (?:^|[.!?]\s)\s*(?:however,\ |remember,?\ |please\ |but\ |and\ |lastly,\ |finally,\ |overall,\ |in\ conclusion,\ )*
    (?:it(?:['’]s|\ is)\ (?:always\ |also\ |still\ )?(?:important|crucial|essential|vital|worth|best|advisable)\ to
        \ (?:note|remember|keep\ in\ mind|consult|seek|be\ aware|respect|consider|recognize|understand|check|treat)
     | (?:please\ )?(?:consult|seek)\ (?:with\ )?(?:an?\ )?(?:\w+\ )?(?:professional|doctor|lawyer|expert)
     | i\ hope\ (?:this|that)\ (?:helps|was\ helpful) )
    [^.!?]*[.!?]?\s*$
""", re.IGNORECASE | re.VERBOSE)


def refuses(answer: str) -> bool:
    """Whether an answer begins by declining what was asked, in part or whole."""
    opening = answer[:OPENING]
    return _has(opening, _REFUSAL_SIGNS) and _REFUSES.search(opening) is not None


def boilerplate(answer: str) -> re.Match[str] | None:
    """Where an answer speaks of itself as an AI, of its makers, or of the end of its knowledge."""
    return _BOILERPLATE.search(answer) if _has(answer, _BOILERPLATE_SIGNS) else None


def tail(answer: str) -> re.Match[str] | None:
    """The last sentence of an answer, where it only reminds or warns."""
    return _TAIL.search(answer, max(0, len(answer) - ENDING))


def _has(text: str, signs: tuple[str, ...]) -> bool:
    lowered = text.lower()
    return any(sign in lowered for sign in signs)
