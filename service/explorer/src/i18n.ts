import { EN, type Word } from "./words_en";
import { ZH } from "./words_zh";

export type Language = "en" | "zh";
/** Both languages say the same: the compiler sees to it that no word lacks. */
const WORDS: Record<Language, Record<Word, string>> = { en: EN, zh: ZH };

/** Every sentence in both languages. */
export function sentences(): Record<Word, [string, string]> {
  return Object.fromEntries(Object.keys(EN).map((word) => [word, [EN[word as Word], ZH[word as Word]]])) as never;
}

export interface Words {
  language: Language;
  (word: Word, values?: Record<string, string | number>): string;
  number(value: number, digits?: number): string;
  price(amount: string, currency: string | null | undefined): string;
  ago(at: string, now: number): string;
  time(at: string): string;
  span(milliseconds: number): string;
}

export function words(language: Language): Words {
  const locale = language === "zh" ? "zh-CN" : "en-GB";
  const said = (word: Word, values: Record<string, string | number> = {}): string =>
    WORDS[language][word].replace(/\{(\w+)\}/g, (_, name: string) => String(values[name] ?? ""));
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: "auto", style: "short" });
  const clock = new Intl.DateTimeFormat(locale, { hour: "2-digit", minute: "2-digit", second: "2-digit" });
  const day = new Intl.DateTimeFormat(locale, { month: "short", day: "numeric", hour: "2-digit", minute: "2-digit" });
  // Making a format takes longer than a card does.
  const formats = new Map<string, Intl.NumberFormat>();
  const format = (key: string, options: Intl.NumberFormatOptions): Intl.NumberFormat => {
    const made = formats.get(key) ?? new Intl.NumberFormat(locale, options);
    formats.set(key, made);
    return made;
  };
  const decimals = (digits: number) =>
    format(String(digits), { minimumFractionDigits: digits, maximumFractionDigits: digits });
  return Object.assign(said, {
    language,
    number: (value: number, digits = 0) => decimals(digits).format(value),
    price(amount: string, currency: string | null | undefined): string {
      const value = Number(amount);
      if (!currency) return decimals(2).format(value);
      try {
        return format(currency, { style: "currency", currency, currencyDisplay: "narrowSymbol" }).format(value);
      } catch {
        return `${amount} ${currency}`;
      }
    },
    ago(at: string, now: number): string {
      const seconds = Math.round((Date.parse(at) - now) / 1000);
      const size = Math.abs(seconds);
      if (size < 5) return said("just_now");
      if (size < 60) return relative.format(Math.min(0, seconds), "second");
      if (size < 3600) return relative.format(Math.round(seconds / 60), "minute");
      if (size < 86400) return relative.format(Math.round(seconds / 3600), "hour");
      return relative.format(Math.round(seconds / 86400), "day");
    },
    time: (at: string) => (Date.now() - Date.parse(at) < 86_400_000 ? clock : day).format(new Date(at)),
    span: (milliseconds: number) =>
      milliseconds < 1000
        ? `${Math.round(milliseconds)} ms`
        : milliseconds < 120_000
          ? `${(milliseconds / 1000).toLocaleString(locale, { maximumFractionDigits: 1 })} s`
          : milliseconds < 7_200_000
            ? `${Math.round(milliseconds / 60_000)} min`
            : milliseconds < 172_800_000
              ? `${Math.round(milliseconds / 3_600_000)} h`
              : `${Math.round(milliseconds / 86_400_000)} d`,
  });
}
