import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ArrayBlockingQueue;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.RejectedExecutionException;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadFactory;
import java.util.concurrent.ThreadLocalRandom;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.IntStream;

/**
 * A small card game behind the protocol of a Forge daemon: to test a client against, to measure with, and as a model
 * for whoever writes a daemon. One file, Java 17 or newer, nothing else.
 *
 * <pre>
 *   java TamenCards daemon -p 17171 [--threads 10] [--decks DIR] [--start-ms N]
 *                          [--compute-ms N] [--wait-ms N] [--allocate-mb N] [--live-mb N] [--fault NAME [--every N]]
 *   java TamenCards bench --games 1000 [--threads 10] [--compute-ms N] [--wait-ms N] [--allocate-mb N] [--live-mb N]
 * </pre>
 *
 * Commands, one a connection: NEWGAME deck1 deck2 [-i|-o] [-q] [-c seconds] [-t seconds] [-s seed] [-x key=value …],
 * STATUS, SHUTDOWN, and of our own BENCH games [-x key=value …]. After HELLO tamen/1 a connection stays open and each
 * line carries the id of its command; see Tagged.
 *
 * What a daemon can be told, for all games by its flags and for one by -x: to compute or to wait for some
 * milliseconds, to take some megabytes from the heap, to let a random player take a seat (-x random=1), and to go wrong
 * (-x fault=…; see Fault). With --live-mb it keeps as much in the heap from its start on.
 *
 * What is done otherwise than in the published daemon, and why:
 *  - each game has a random generator of its own, so that a seed means one game however many are played beside it;
 *  - STATUS is answered at once, also while as many games are played as there are threads;
 *  - a game over its time is stopped, and a bad option is told, where the other's thread goes on, or dies silently;
 *  - it listens on loopback alone.
 *
 * The way through the file: cards, the game, its players, JSON, the daemon, main.
 */
public final class TamenCards {

    // ---------------------------------------------------------------- cards

    enum Kind { LAND, CREATURE, SPELL }

    /** What a spell does when it is cast, or a creature when it comes into play. */
    enum Effect { NONE, LOOT, PEEK, BOLT, FIREBALL, CHARM, SCHEME, BARGAIN, GAMBIT }

    record Card(String name, Kind kind, int cost, int power, int toughness, Effect effect, String text) {}

    static final Map<String, Card> CARDS = new LinkedHashMap<>();

    private static void land(String name) {
        CARDS.put(name, new Card(name, Kind.LAND, 0, 0, 0, Effect.NONE, "Pays one mana a turn."));
    }

    private static void creature(String name, int cost, int power, int toughness, Effect effect, String text) {
        CARDS.put(name, new Card(name, Kind.CREATURE, cost, power, toughness, effect, text));
    }

    private static void spell(String name, int cost, Effect effect, String text) {
        CARDS.put(name, new Card(name, Kind.SPELL, cost, 0, 0, effect, text));
    }

    static {
        land("Field");
        creature("Scout", 1, 1, 1, Effect.NONE, "");
        creature("Soldier", 2, 2, 2, Effect.NONE, "");
        creature("Archer", 2, 1, 3, Effect.NONE, "");
        creature("Herald", 3, 2, 2, Effect.LOOT, "When it comes, you may draw a card, then discard one.");
        creature("Seer", 2, 1, 2, Effect.PEEK, "When it comes, the other hand is revealed to you.");
        creature("Knight", 3, 3, 3, Effect.NONE, "");
        creature("Ogre", 5, 5, 4, Effect.NONE, "");
        creature("Giant", 6, 6, 6, Effect.NONE, "");
        spell("Bolt", 2, Effect.BOLT, "3 damage to a creature or to your opponent.");
        spell("Fireball", 1, Effect.FIREBALL, "Pay X more: X damage to a creature or to your opponent.");
        spell("Charm", 2, Effect.CHARM, "Draw a card, or gain 4 life, or 2 damage to your opponent.");
        spell("Scheme", 2, Effect.SCHEME, "Look at your top 3 cards; you may take one, the others go to the bottom.");
        spell("Bargain", 1, Effect.BARGAIN, "Draw a card. You may pay 3 life to draw another.");
        spell("Gambit", 3, Effect.GAMBIT, "Reveal your top card; you may play it without paying, or else take it.");
    }

    /** A deck: its name and how many of each card. */
    record Deck(String name, List<Card> cards) {

        static final int MOST_CARDS = 250;
        static final long MOST_BYTES = 1 << 16;

        /** Decks that are there without a file. */
        static final Map<String, Deck> STORED = Map.of(
            "aggro", parse("[metadata]\nName=Aggro\n[Main]\n16 Field\n6 Scout\n7 Soldier\n5 Knight\n"
                + "4 Bolt\n2 Fireball\n"),
            "control", parse("[metadata]\nName=Control\n[Main]\n17 Field\n4 Archer\n3 Herald\n2 Seer\n3 Ogre\n3 Giant\n"
                + "2 Bolt\n1 Fireball\n1 Charm\n1 Scheme\n1 Bargain\n2 Gambit\n"));

        /** Read the text of a .dck file: [metadata] with Name=…, [Main] with lines of count and card; null if bad. */
        static Deck parse(String text) {
            String section = "", name = "";
            List<Card> cards = new ArrayList<>();
            for (String line : text.lines().map(String::strip).filter(line -> !line.isEmpty()).toList()) {
                if (line.startsWith("[")) {
                    section = line.toLowerCase(Locale.ROOT);
                } else if (section.equals("[metadata]") && line.startsWith("Name=")) {
                    name = line.substring("Name=".length()).strip();
                } else if (section.equals("[main]")) {
                    String[] words = line.split("\\s+", 2);
                    Card card = words.length == 2 ? CARDS.get(words[1]) : null;
                    int count = wholeOr(words[0], 0);
                    if (card == null || count < 1 || cards.size() + count > MOST_CARDS) {
                        return null;
                    }
                    cards.addAll(Collections.nCopies(count, card));
                }
            }
            return name.isEmpty() || cards.isEmpty() ? null : new Deck(name, List.copyOf(cards));
        }

        /** Find a deck as the published daemon does: a path, a file in the folder of decks, a stored name; or null. */
        static Deck find(String name, Path folder) {
            if (name.endsWith(".dck")) {
                try {
                    for (Path path : List.of(Path.of(name), folder.resolve(name))) {
                        if (Files.isRegularFile(path) && Files.size(path) <= MOST_BYTES) {
                            return parse(Files.readString(path));
                        }
                    }
                } catch (IOException | InvalidPathException problem) {
                    return null; // not readable, or not UTF-8
                }
            }
            return STORED.get(name);
        }
    }

    // ----------------------------------------------------------------- game

    /** A card in the game, wherever it lies. */
    static final class Piece {
        final int id;
        final Card card;
        boolean tapped;
        boolean sick;
        int damage;

        Piece(int id, Card card) {
            this.id = id;
            this.card = card;
        }

        boolean is(Kind kind) {
            return card.kind() == kind;
        }

        int toughnessLeft() {
            return card.toughness() - damage;
        }
    }

    /** One of the two seats, with what lies before it. */
    static final class Seat {
        final String name;
        final Mind mind;
        final Deque<Piece> library = new ArrayDeque<>();
        final List<Piece> hand = new ArrayList<>();
        final List<Piece> board = new ArrayList<>();
        final List<Piece> graveyard = new ArrayList<>();
        int life = 20;
        int landsPlayed;
        int decisions;
        boolean lost;

        Seat(String name, Mind mind) {
            this.name = name;
            this.mind = mind;
        }

        List<Piece> creatures() {
            return board.stream().filter(piece -> piece.is(Kind.CREATURE)).toList();
        }

        /** Mana that can be spent now: each untapped land pays one. */
        int mana() {
            return (int) board.stream().filter(piece -> piece.is(Kind.LAND) && !piece.tapped).count();
        }

        void pay(int mana) {
            board.stream().filter(piece -> piece.is(Kind.LAND) && !piece.tapped).limit(mana)
                .forEach(piece -> piece.tapped = true);
        }
    }

    /**
     * Something that a seat has to decide.
     *
     * @param type one of the protocol's decision types
     * @param options what there is to choose from: Piece, Seat or String; empty for the types without
     * @param attackers of declare_blockers
     * @param amount of damage that the choice is about, or the largest value that may be announced
     * @param details further fields, as they are sent
     */
    record Ask(String type, Seat seat, List<?> options, List<Piece> attackers, int min, int max, boolean optional,
               int amount, Map<String, Object> details) {

        Ask(String type, Seat seat, List<?> options, Map<String, Object> details) {
            this(type, seat, options, List.of(), 0, 0, false, 0, details);
        }
    }

    /**
     * Who decides for a seat. What is returned: [index or -1] for choose_action, choose_ability and choose_entity;
     * indices for declare_attackers and choose_cards; blocker, attacker, blocker, attacker, … for declare_blockers;
     * [value] for announce_value; [0 or 1] for yes and no; [] for reveal.
     */
    interface Mind {
        int[] choose(Game game, Ask ask) throws GameStopped;
    }

    /** A game that does not go on: its time is over, or nobody is there any more who wants to know. */
    static final class GameStopped extends Exception {
        private static final long serialVersionUID = 1;
        final boolean timedOut;

        GameStopped(boolean timedOut) {
            super("the game was stopped", null, false, false);
            this.timedOut = timedOut;
        }
    }

    /** When a game has to stop. */
    interface Clock {
        void check() throws GameStopped;
    }

    static final class Game {
        static final int HAND = 7;
        static final int MOST_TURNS = 200;

        final Seat[] seats;
        final Random random;
        final Clock clock;
        int turn;
        int active;
        String phase = "UNTAP";
        Seat priority;
        boolean over;
        Seat winner;
        List<Piece> attackers = List.of();
        final Map<Piece, Piece> blocks = new LinkedHashMap<>();
        private int lastId;

        Game(Seat[] seats, Deck[] decks, long seed, Clock clock) {
            this.seats = seats;
            this.random = new Random(seed);
            this.clock = clock;
            for (int i = 0; i < 2; i++) {
                List<Piece> pieces = new ArrayList<>();
                decks[i].cards().forEach(card -> pieces.add(new Piece(++lastId, card)));
                Collections.shuffle(pieces, random);
                seats[i].library.addAll(pieces);
            }
            active = random.nextInt(2);
        }

        /** Play to the end; `winner` is null for a draw. */
        void play() throws GameStopped {
            for (Seat seat : seats) {
                draw(seat, HAND);
            }
            while (!over && turn < MOST_TURNS) {
                turn++;
                playTurn(seats[active], other(seats[active]));
                active = 1 - active;
            }
            over = true;
        }

        Seat other(Seat seat) {
            return seat == seats[0] ? seats[1] : seats[0];
        }

        private void playTurn(Seat seat, Seat opponent) throws GameStopped {
            phase = "UNTAP";
            seat.landsPlayed = 0;
            for (Piece piece : seat.board) {
                piece.tapped = false;
                piece.sick = false;
            }
            phase = "DRAW";
            if (turn > 1) {
                draw(seat, 1);
            }
            phase = "MAIN1";
            playMain(seat);
            playCombat(seat, opponent);
            phase = "MAIN2";
            playMain(seat);
            phase = "CLEANUP";
            discard(seat, seat.hand.size() - HAND);
            for (Seat each : seats) {
                each.board.forEach(piece -> piece.damage = 0);
            }
        }

        /** Let a seat play cards until it passes or has none that it can play. */
        private void playMain(Seat seat) throws GameStopped {
            while (!over) {
                List<Piece> playable = seat.hand.stream().filter(piece -> canPlay(seat, piece)).toList();
                if (playable.isEmpty()) {
                    return;
                }
                Map<String, Object> details = message("Choose action to play (index, or -1 to pass)");
                int choice = ask(new Ask("choose_action", seat, playable, details))[0];
                if (choice < 0) {
                    return;
                }
                Piece piece = playable.get(choice);
                seat.hand.remove(piece);
                seat.pay(piece.card.cost());
                resolve(seat, piece);
            }
        }

        private static boolean canPlay(Seat seat, Piece piece) {
            return piece.is(Kind.LAND) ? seat.landsPlayed == 0 : piece.card.cost() <= seat.mana();
        }

        /** Put a card that was played, and paid for, to its use. */
        private void resolve(Seat seat, Piece piece) throws GameStopped {
            if (piece.is(Kind.SPELL)) {
                seat.graveyard.add(piece);
            } else {
                piece.sick = piece.is(Kind.CREATURE);
                seat.landsPlayed += piece.is(Kind.LAND) ? 1 : 0;
                seat.board.add(piece);
            }
            Seat opponent = other(seat);
            switch (piece.card.effect()) {
                case NONE -> { }
                case LOOT -> loot(seat, piece);
                case PEEK -> reveal(seat, opponent, "Hand", opponent.hand);
                case BOLT -> shoot(seat, piece, 3);
                case FIREBALL -> fireball(seat, piece);
                case CHARM -> charm(seat, piece);
                case SCHEME -> scheme(seat);
                case BARGAIN -> bargain(seat, piece);
                case GAMBIT -> gambit(seat, piece);
            }
        }

        private void loot(Seat seat, Piece piece) throws GameStopped {
            Map<String, Object> details = message("Play trigger? (y/n)");
            details.put("trigger_card", piece.card.name());
            details.put("trigger", piece.card.text());
            if (ask(new Ask("play_trigger", seat, List.of(), details))[0] == 1) {
                draw(seat, 1);
                discard(seat, 1);
            }
        }

        private void shoot(Seat seat, Piece piece, int damage) throws GameStopped {
            Seat opponent = other(seat);
            List<Object> targets = new ArrayList<>(opponent.creatures());
            targets.add(opponent);
            int choice = 0;
            if (targets.size() > 1) {
                Map<String, Object> details = message("Choose entity (index)");
                details.put("title", damage + " damage of " + piece.card.name());
                choice = ask(new Ask("choose_entity", seat, targets, List.of(), 1, 1, false, damage, details))[0];
            }
            if (targets.get(choice) instanceof Piece target) {
                target.damage += damage;
                bury(opponent);
            } else {
                hurt(opponent, damage);
            }
        }

        private void fireball(Seat seat, Piece piece) throws GameStopped {
            int most = seat.mana();
            Map<String, Object> details = message("Enter value for X");
            details.put("ability", piece.card.text());
            details.put("announce", "X");
            int value = ask(new Ask("announce_value", seat, List.of(), List.of(), 0, most, false, most, details))[0];
            value = Math.min(value, most); // more cannot be paid
            seat.pay(value);
            shoot(seat, piece, value);
        }

        private void charm(Seat seat, Piece piece) throws GameStopped {
            List<String> modes = List.of("Draw a card", "Gain 4 life", "2 damage to your opponent");
            Map<String, Object> details = message("Choose ability to play (index)");
            details.put("card", piece.card.name());
            switch (ask(new Ask("choose_ability", seat, modes, details))[0]) {
                case 0 -> draw(seat, 1);
                case 1 -> seat.life += 4;
                default -> hurt(other(seat), 2);
            }
        }

        private void scheme(Seat seat) throws GameStopped {
            List<Piece> seen = new ArrayList<>();
            while (seen.size() < 3 && !seat.library.isEmpty()) {
                seen.add(seat.library.removeFirst());
            }
            for (Piece taken : chooseCards(seat, "Take into your hand", seen, 0, 1, true)) {
                seat.hand.add(taken);
                seen.remove(taken);
            }
            seat.library.addAll(seen);
        }

        private void bargain(Seat seat, Piece piece) throws GameStopped {
            draw(seat, 1);
            Map<String, Object> details = message("Confirm action? (y/n)");
            details.put("mode", "PayLife");
            details.put("card", piece.card.name());
            if (ask(new Ask("confirm_action", seat, List.of(), details))[0] == 1) {
                hurt(seat, 3);
                draw(seat, 1);
            }
        }

        private void gambit(Seat seat, Piece piece) throws GameStopped {
            Piece top = seat.library.pollFirst();
            if (top == null) {
                return;
            }
            reveal(other(seat), seat, "Library", List.of(top));
            Map<String, Object> details = message("Play spell from effect? (y/n)");
            details.put("spell", top.card.name());
            if (ask(new Ask("play_from_effect", seat, List.of(), details))[0] == 1) {
                resolve(seat, top);
            } else {
                seat.hand.add(top);
            }
        }

        /** Show cards to a seat. Nothing is answered. */
        private void reveal(Seat to, Seat owner, String zone, List<Piece> pieces) throws GameStopped {
            Map<String, Object> details = new LinkedHashMap<>();
            details.put("zone", zone);
            details.put("owner", owner.name);
            details.put("cards", pieces.stream().map(piece -> piece.card.name()).toList());
            ask(new Ask("reveal", to, List.of(), details));
        }

        private void playCombat(Seat seat, Seat opponent) throws GameStopped {
            phase = "COMBAT_DECLARE_ATTACKERS";
            List<Piece> able = seat.creatures().stream().filter(piece -> !piece.tapped && !piece.sick).toList();
            if (over || able.isEmpty()) {
                return;
            }
            Map<String, Object> details = message("Choose attackers (comma-separated indices, or empty for none)");
            details.put("defenders", List.of(Map.of("name", opponent.name, "type", "player", "life", opponent.life)));
            List<Piece> chosen = new ArrayList<>();
            for (int index : ask(new Ask("declare_attackers", seat, able, details))) {
                chosen.add(able.get(index));
                able.get(index).tapped = true;
            }
            attackers = chosen;
            declareBlockers(opponent);
            phase = "COMBAT_DAMAGE";
            for (Piece attacker : attackers) {
                strike(attacker, opponent);
            }
            bury(seat);
            bury(opponent);
            attackers = List.of();
            blocks.clear();
        }

        private void declareBlockers(Seat seat) throws GameStopped {
            phase = "COMBAT_DECLARE_BLOCKERS";
            List<Piece> able = seat.creatures().stream().filter(piece -> !piece.tapped).toList();
            if (attackers.isEmpty() || able.isEmpty()) {
                return;
            }
            Map<String, Object> details = message("Assign blockers as blocker:attacker pairs, or empty for none");
            int[] pairs = ask(new Ask("declare_blockers", seat, able, attackers, 0, 0, false, 0, details));
            for (int i = 0; i < pairs.length; i += 2) {
                blocks.put(able.get(pairs[i]), attackers.get(pairs[i + 1]));
            }
        }

        /** An attacker deals its damage to its blockers, one after the other, or to who is attacked. */
        private void strike(Piece attacker, Seat defender) {
            int left = attacker.card.power();
            boolean blocked = false;
            for (Map.Entry<Piece, Piece> block : blocks.entrySet()) {
                if (block.getValue() == attacker) {
                    Piece blocker = block.getKey();
                    int dealt = Math.min(left, Math.max(blocker.toughnessLeft(), 0));
                    blocker.damage += dealt;
                    left -= dealt;
                    attacker.damage += blocker.card.power();
                    blocked = true;
                }
            }
            if (!blocked) {
                hurt(defender, attacker.card.power());
            }
        }

        /** Creatures whose damage kills them go to the graveyard. */
        private static void bury(Seat seat) {
            for (Piece piece : seat.creatures()) {
                if (piece.toughnessLeft() <= 0) {
                    seat.board.remove(piece);
                    piece.damage = 0;
                    piece.tapped = false;
                    seat.graveyard.add(piece);
                }
            }
        }

        private void hurt(Seat seat, int damage) {
            seat.life -= damage;
            if (seat.life <= 0) {
                lose(seat);
            }
        }

        private void lose(Seat seat) {
            if (!over) {
                seat.lost = true;
                over = true;
                winner = other(seat);
            }
        }

        private void draw(Seat seat, int count) {
            for (int i = 0; i < count; i++) {
                if (seat.library.isEmpty()) {
                    lose(seat);
                    return;
                }
                seat.hand.add(seat.library.removeFirst());
            }
        }

        private void discard(Seat seat, int count) throws GameStopped {
            int due = Math.min(count, seat.hand.size());
            if (due > 0 && !over) {
                for (Piece piece : chooseCards(seat, "Discard", seat.hand, due, due, false)) {
                    seat.hand.remove(piece);
                    seat.graveyard.add(piece);
                }
            }
        }

        private List<Piece> chooseCards(Seat seat, String title, List<Piece> from, int min, int max, boolean optional)
                throws GameStopped {
            if (from.isEmpty()) {
                return List.of();
            }
            Map<String, Object> details = message("Choose " + min + "-" + max + " cards (comma-separated indices)");
            details.put("title", title);
            details.put("min", min);
            details.put("max", max);
            List<Piece> options = List.copyOf(from);
            int[] chosen = ask(new Ask("choose_cards", seat, options, List.of(), min, max, optional, 0, details));
            return Arrays.stream(chosen).mapToObj(options::get).toList();
        }

        private int[] ask(Ask ask) throws GameStopped {
            clock.check();
            priority = ask.seat();
            return ask.seat().mind.choose(this, ask);
        }

        private static Map<String, Object> message(String text) {
            Map<String, Object> details = new LinkedHashMap<>();
            details.put("message", text);
            return details;
        }
    }

    // -------------------------------------------------------------- players

    /** Plays what costs most, trades when it pays, and goes for the life when that kills. No chance in it. */
    static final class AiMind implements Mind {

        @Override
        @SuppressWarnings("unchecked")
        public int[] choose(Game game, Ask ask) {
            Seat me = ask.seat(), opponent = game.other(me);
            return switch (ask.type()) {
                case "choose_action" -> new int[] {bestAction((List<Piece>) ask.options(), me, opponent)};
                case "declare_attackers" -> attackers((List<Piece>) ask.options(), me, opponent);
                case "declare_blockers" -> blockers((List<Piece>) ask.options(), ask.attackers(), me);
                case "choose_cards" -> cards((List<Piece>) ask.options(), ask, me);
                case "choose_entity" -> new int[] {target(ask.options(), ask.amount(), opponent)};
                case "choose_ability" -> new int[] {opponent.life <= 2 ? 2 : me.life <= 6 ? 1 : 0};
                case "announce_value" -> new int[] {Math.min(ask.amount(), Math.max(opponent.life, 0))};
                case "confirm_action" -> new int[] {me.life > 8 ? 1 : 0};
                case "reveal" -> new int[0];
                default -> new int[] {1};
            };
        }

        private static int bestAction(List<Piece> playable, Seat me, Seat opponent) {
            int best = -1, bestScore = 0;
            for (int i = 0; i < playable.size(); i++) {
                int score = score(playable.get(i).card, me, opponent);
                if (score > bestScore) {
                    best = i;
                    bestScore = score;
                }
            }
            return best;
        }

        private static int score(Card card, Seat me, Seat opponent) {
            int spare = me.mana() - card.cost();
            return switch (card.effect()) {
                case BOLT -> opponent.life <= 3 ? 1000 : kills(opponent, 3) ? 40 : opponent.life <= 9 ? 5 : 0;
                case FIREBALL -> opponent.life <= spare ? 1000 : spare >= 4 && kills(opponent, spare) ? 30 : 0;
                case CHARM -> opponent.life <= 2 ? 1000 : 20;
                case SCHEME -> 15;
                case BARGAIN -> me.life > 4 ? 18 : 10;
                case GAMBIT -> 25;
                default -> card.kind() == Kind.LAND ? 500 : 50 + 10 * card.cost();
            };
        }

        private static boolean kills(Seat opponent, int damage) {
            return opponent.creatures().stream().anyMatch(p -> p.toughnessLeft() <= damage && p.card.cost() >= 2);
        }

        /** The opponent if that ends the game, else the strongest creature that dies, else the opponent. */
        private static int target(List<?> options, int damage, Seat opponent) {
            int face = options.size() - 1, best = face, strongest = -1;
            if (opponent.life <= damage) {
                return face;
            }
            for (int i = 0; i < face; i++) {
                Piece piece = (Piece) options.get(i);
                if (piece.toughnessLeft() <= damage && piece.card.power() > strongest) {
                    best = i;
                    strongest = piece.card.power();
                }
            }
            return best;
        }

        private static int[] attackers(List<Piece> able, Seat me, Seat opponent) {
            List<Piece> guards = opponent.creatures().stream().filter(piece -> !piece.tapped).toList();
            int[] everyone = IntStream.range(0, able.size()).toArray();
            int unblocked = able.stream().map(piece -> piece.card.power()).sorted(Comparator.reverseOrder())
                .skip(guards.size()).mapToInt(Integer::intValue).sum();
            if (unblocked >= opponent.life) {
                return everyone;
            }
            int backlash = opponent.creatures().stream().mapToInt(piece -> piece.card.power()).sum();
            boolean cautious = backlash >= me.life;
            return Arrays.stream(everyone).filter(i -> {
                Piece piece = able.get(i);
                boolean safe = guards.stream().noneMatch(guard -> guard.card.power() >= piece.toughnessLeft());
                boolean trades = guards.stream().noneMatch(guard -> guard.card.power() >= piece.toughnessLeft()
                    && (guard.toughnessLeft() > piece.card.power() || guard.card.cost() < piece.card.cost()));
                return cautious ? safe && guards.size() < able.size() : safe || trades;
            }).toArray();
        }

        /** Against each attacker, the strongest first: who survives, or trades up; who must when it is about life. */
        private static int[] blockers(List<Piece> able, List<Piece> attackers, Seat me) {
            List<Integer> pairs = new ArrayList<>();
            List<Integer> free = new ArrayList<>();
            for (int i = 0; i < able.size(); i++) {
                free.add(i);
            }
            int coming = attackers.stream().mapToInt(piece -> piece.card.power()).sum();
            List<Piece> strongest = new ArrayList<>(attackers);
            strongest.sort(Comparator.comparingInt((Piece piece) -> piece.card.power()).reversed());
            for (Piece attacker : strongest) {
                boolean desperate = coming >= me.life;
                Integer best = null;
                int bestScore = 0;
                for (Integer index : free) {
                    int score = blockScore(able.get(index), attacker, desperate);
                    if (score > bestScore) {
                        best = index;
                        bestScore = score;
                    }
                }
                if (best != null) {
                    free.remove(best);
                    pairs.add(best);
                    pairs.add(attackers.indexOf(attacker));
                    coming -= attacker.card.power();
                }
            }
            return pairs.stream().mapToInt(Integer::intValue).toArray();
        }

        private static int blockScore(Piece blocker, Piece attacker, boolean desperate) {
            boolean survives = blocker.toughnessLeft() > attacker.card.power();
            boolean kills = blocker.card.power() >= attacker.toughnessLeft();
            if (survives) {
                return kills ? 100 : 60;
            }
            if (kills && blocker.card.cost() <= attacker.card.cost()) {
                return 50 - blocker.card.cost();
            }
            return desperate ? 20 - blocker.card.cost() : 0;
        }

        /** Lands while there are few, else what costs most; to discard, the other way round. */
        private static int[] cards(List<Piece> options, Ask ask, Seat me) {
            long lands = me.board.stream().filter(piece -> piece.is(Kind.LAND)).count();
            Comparator<Integer> byWorth = Comparator.comparingInt(
                (Integer i) -> options.get(i).is(Kind.LAND) ? (lands < 5 ? 100 : -1) : options.get(i).card.cost());
            boolean keeps = ask.optional();
            List<Integer> order = new ArrayList<>();
            for (int i = 0; i < options.size(); i++) {
                order.add(i);
            }
            order.sort(keeps ? byWorth.reversed() : byWorth);
            return order.stream().limit(ask.max()).mapToInt(Integer::intValue).toArray();
        }
    }

    /** Any legal choice, each as likely. */
    static final class RandomMind implements Mind {
        private final Random random;

        RandomMind(long seed) {
            this.random = new Random(seed);
        }

        @Override
        public int[] choose(Game game, Ask ask) {
            int count = ask.options().size();
            return switch (ask.type()) {
                case "choose_action" -> new int[] {random.nextInt(count + 1) - 1};
                case "choose_ability", "choose_entity" -> new int[] {random.nextInt(count)};
                case "declare_attackers" -> some(count, random.nextInt(count + 1));
                case "choose_cards" -> some(count, ask.min() + random.nextInt(ask.max() - ask.min() + 1));
                case "declare_blockers" -> {
                    int[] blockers = some(count, random.nextInt(count + 1));
                    yield Arrays.stream(blockers)
                        .flatMap(i -> IntStream.of(i, random.nextInt(ask.attackers().size()))).toArray();
                }
                case "announce_value" -> new int[] {random.nextInt(ask.max() + 1)};
                case "reveal" -> new int[0];
                default -> new int[] {random.nextInt(2)};
            };
        }

        private int[] some(int of, int count) {
            List<Integer> all = new ArrayList<>();
            for (int i = 0; i < of; i++) {
                all.add(i);
            }
            Collections.shuffle(all, random);
            return all.stream().limit(count).mapToInt(Integer::intValue).toArray();
        }
    }

    /** Lets another decide, and tells what it decided of actions, attackers and blockers: the mode -o. */
    static final class ObservedMind implements Mind {
        private final Mind mind;
        private final Channel channel;

        ObservedMind(Mind mind, Channel channel) {
            this.mind = mind;
            this.channel = channel;
        }

        @Override
        public int[] choose(Game game, Ask ask) throws GameStopped {
            int[] choice = mind.choose(game, ask);
            Object label = switch (ask.type()) {
                case "choose_action" -> actionLabel(ask, choice[0]);
                case "declare_attackers" -> Arrays.stream(choice).boxed().toList();
                case "declare_blockers" -> blockLabel(choice);
                default -> null;
            };
            if (label != null) {
                Map<String, Object> decision = View.decision(game, ask, false);
                decision.put("ai_choice", label);
                channel.line("DECISION:" + Json.of(decision));
            }
            return choice;
        }

        private static Map<String, Object> actionLabel(Ask ask, int index) {
            if (index < 0) {
                return Map.of("action", "pass");
            }
            Map<String, Object> option = View.option(ask, index);
            Map<String, Object> label = new LinkedHashMap<>();
            for (String key : List.of("card", "description", "is_land")) {
                label.put(key, option.get(key));
            }
            return label;
        }

        private static List<Map<String, Object>> blockLabel(int[] pairs) {
            List<Map<String, Object>> label = new ArrayList<>();
            for (int i = 0; i < pairs.length; i += 2) {
                label.add(Map.of("blocker", pairs[i], "attacker", pairs[i + 1]));
            }
            return label;
        }
    }

    /** Asks over the connection: the mode -i. A bad reply is taken for some reply, as the published daemon does it. */
    static final class RemoteMind implements Mind {
        private final Channel channel;

        RemoteMind(Channel channel) {
            this.channel = channel;
        }

        @Override
        public int[] choose(Game game, Ask ask) throws GameStopped {
            channel.line("DECISION:" + Json.of(View.decision(game, ask, true)));
            if (ask.type().equals("reveal")) {
                return new int[0];
            }
            String reply = channel.reply(game.clock).strip();
            int count = ask.options().size();
            return switch (ask.type()) {
                case "choose_action" -> new int[] {action(reply, count)};
                case "declare_attackers" -> indices(reply, count, count);
                case "declare_blockers" -> blocks(reply, count, ask.attackers().size());
                case "choose_cards" -> cards(reply, ask);
                case "choose_ability", "choose_entity" -> new int[] {within(reply, count - 1)};
                case "announce_value" -> new int[] {within(reply, Integer.MAX_VALUE)};
                default -> new int[] {isYes(reply) ? 1 : 0};
            };
        }

        private static int action(String reply, int count) {
            int index = wholeOr(reply, -1);
            return index < count ? Math.max(index, -1) : -1;
        }

        private int within(String reply, int most) {
            int value = wholeOr(reply, -1);
            if (value < 0 || value > most) {
                channel.line("ERROR: Value " + reply + " out of range [0, " + most + "]");
                return 0;
            }
            return value;
        }

        private static boolean isYes(String reply) {
            String lower = reply.toLowerCase(Locale.ROOT);
            return lower.startsWith("y") || lower.equals("1") || lower.equals("true");
        }

        private static int[] indices(String reply, int count, int most) {
            return Arrays.stream(reply.replaceAll("[\\[\\] ]", "").split(","))
                .mapToInt(word -> wholeOr(word, -1)).filter(i -> i >= 0 && i < count).distinct().limit(most).toArray();
        }

        private static int[] cards(String reply, Ask ask) {
            int[] chosen = indices(reply, ask.options().size(), ask.max());
            if (chosen.length >= ask.min() || (chosen.length == 0 && ask.optional())) {
                return chosen;
            }
            List<Integer> filled = new ArrayList<>(Arrays.stream(chosen).boxed().toList());
            for (int i = 0; filled.size() < ask.min(); i++) {
                if (!filled.contains(i)) {
                    filled.add(i);
                }
            }
            return filled.stream().mapToInt(Integer::intValue).toArray();
        }

        private static int[] blocks(String reply, int blockers, int attackers) {
            Map<Integer, Integer> pairs = new LinkedHashMap<>();
            for (String pair : reply.split(",")) {
                String[] words = pair.strip().split(":");
                int blocker = wholeOr(words[0], -1), attacker = words.length == 2 ? wholeOr(words[1], -1) : -1;
                if (blocker >= 0 && blocker < blockers && attacker >= 0 && attacker < attackers) {
                    pairs.putIfAbsent(blocker, attacker);
                }
            }
            return pairs.entrySet().stream()
                .flatMapToInt(pair -> IntStream.of(pair.getKey(), pair.getValue())).toArray();
        }
    }

    // ----------------------------------------------------------------- JSON

    /** How a decision and the state of its game are told. */
    static final class View {

        private static final Map<String, String> OPTIONS = Map.of(
            "choose_action", "actions", "declare_attackers", "attackers", "declare_blockers", "blockers",
            "choose_ability", "abilities", "choose_cards", "cards", "choose_entity", "entities");

        /** @param full with both hands and all that lies open, as in the mode -i; else a summary, as in -o. */
        static Map<String, Object> decision(Game game, Ask ask, boolean full) {
            Map<String, Object> decision = new LinkedHashMap<>();
            decision.put("decision_type", ask.type());
            decision.put("decision_id", ask.seat().decisions++);
            decision.put("player", ask.seat().name);
            decision.put("turn", game.turn);
            decision.put("phase", game.phase);
            decision.put("game_state", state(game, full));
            String name = OPTIONS.get(ask.type());
            if (name != null) {
                List<Object> options = new ArrayList<>();
                for (int i = 0; i < ask.options().size(); i++) {
                    options.add(option(ask, i));
                }
                if (ask.type().equals("choose_action")) {
                    options.add(action(-1, "Pass priority", "", -1, "", false));
                }
                decision.put(name, options);
            }
            if (ask.type().equals("declare_blockers")) {
                decision.put("attackers", indexed(ask.attackers()));
            }
            if (ask.type().startsWith("choose_c") || ask.type().equals("choose_entity")) {
                decision.put("optional", ask.optional());
            }
            decision.putAll(ask.details());
            return decision;
        }

        static Map<String, Object> option(Ask ask, int index) {
            Object option = ask.options().get(index);
            if (ask.type().equals("choose_action") && option instanceof Piece piece) {
                Card card = piece.card;
                String description = card.text().isEmpty() ? card.name() : card.name() + " - " + card.text();
                return action(index, description, card.name(), piece.id, cost(card), piece.is(Kind.LAND));
            }
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("index", index);
            if (option instanceof Piece piece) {
                fields.put("card_id", piece.id);
                fields.put("name", piece.card.name());
                if (ask.type().startsWith("declare")) {
                    fields.put("power", piece.card.power());
                    fields.put("toughness", piece.card.toughness());
                }
            } else if (option instanceof Seat seat) {
                fields.put("name", seat.name);
            } else {
                fields.put("description", option);
                fields.put("mana_cost", "");
            }
            return fields;
        }

        private static Map<String, Object> action(int index, String description, String card, int id, String cost,
                                                  boolean isLand) {
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("index", index);
            fields.put("description", description);
            fields.put("card", card);
            fields.put("card_id", id);
            fields.put("mana_cost", cost);
            fields.put("is_land", isLand);
            return fields;
        }

        private static String cost(Card card) {
            String more = card.effect() == Effect.FIREBALL ? "{X}" : "";
            return card.kind() == Kind.LAND ? "" : more + "{" + card.cost() + "}";
        }

        private static List<Object> indexed(List<Piece> pieces) {
            List<Object> all = new ArrayList<>();
            for (Piece piece : pieces) {
                Map<String, Object> fields = combatant(piece);
                fields.put("index", all.size());
                all.add(fields);
            }
            return all;
        }

        private static Map<String, Object> combatant(Piece piece) {
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("card_id", piece.id);
            fields.put("name", piece.card.name());
            fields.put("power", piece.card.power());
            fields.put("toughness", piece.card.toughness());
            return fields;
        }

        private static Map<String, Object> state(Game game, boolean full) {
            Map<String, Object> state = new LinkedHashMap<>();
            state.put("is_game_over", game.over);
            state.put("active_player", game.seats[game.active].name);
            List<Object> players = new ArrayList<>();
            for (Seat seat : game.seats) {
                players.add(full ? openPlayer(seat) : player(seat));
            }
            if (full) {
                state.put("priority_player", game.priority.name);
                state.put("stack", List.of());
                if (!game.attackers.isEmpty()) {
                    state.put("combat", combat(game));
                }
            }
            state.put("players", players);
            return state;
        }

        private static Map<String, Object> player(Seat seat) {
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("name", seat.name);
            fields.put("life", seat.life);
            fields.put("lands_played_this_turn", seat.landsPlayed);
            fields.put("max_land_plays", 1);
            fields.put("hand_size", seat.hand.size());
            fields.put("library_size", seat.library.size());
            long lands = seat.board.stream().filter(piece -> piece.is(Kind.LAND)).count();
            fields.put("battlefield_creatures", seat.board.size() - lands);
            fields.put("battlefield_lands", lands);
            fields.put("battlefield_other", 0);
            fields.put("mana_pool", Map.of("total", seat.mana()));
            return fields;
        }

        private static Map<String, Object> openPlayer(Seat seat) {
            Map<String, Object> fields = player(seat);
            fields.keySet().removeIf(key -> key.startsWith("battlefield_"));
            fields.put("poison", 0);
            fields.put("has_lost", seat.lost);
            fields.put("hand", seat.hand.stream().map(View::card).toList());
            fields.put("graveyard", seat.graveyard.stream().map(View::card).toList());
            fields.put("exile", List.of());
            fields.put("battlefield", seat.board.stream().map(piece -> {
                Map<String, Object> onBoard = card(piece);
                onBoard.put("tapped", piece.tapped);
                onBoard.put("summoning_sick", piece.sick);
                onBoard.put("is_creature", piece.is(Kind.CREATURE));
                onBoard.put("is_land", piece.is(Kind.LAND));
                onBoard.put("damage", piece.damage);
                return onBoard;
            }).toList());
            return fields;
        }

        private static Map<String, Object> card(Piece piece) {
            Card card = piece.card;
            Map<String, Object> fields = new LinkedHashMap<>();
            fields.put("id", piece.id);
            fields.put("name", card.name());
            fields.put("mana_cost", cost(card));
            fields.put("cmc", card.cost());
            String kind = card.kind().name();
            fields.put("types", kind.charAt(0) + kind.substring(1).toLowerCase(Locale.ROOT));
            fields.put("oracle_text", card.text());
            if (piece.is(Kind.CREATURE)) {
                fields.put("power", card.power());
                fields.put("toughness", card.toughness());
            }
            return fields;
        }

        private static Map<String, Object> combat(Game game) {
            List<Object> attackers = new ArrayList<>();
            for (Piece attacker : game.attackers) {
                Map<String, Object> fields = combatant(attacker);
                fields.put("blocked_by", game.blocks.entrySet().stream().filter(block -> block.getValue() == attacker)
                    .map(block -> Map.of("card_id", block.getKey().id, "name", block.getKey().card.name())).toList());
                attackers.add(fields);
            }
            return Map.of("attackers", attackers);
        }
    }

    /** Maps, lists, strings, numbers and truth values as JSON, on one line. */
    static final class Json {
        static String of(Object value) {
            StringBuilder text = new StringBuilder();
            write(value, text);
            return text.toString();
        }

        private static void write(Object value, StringBuilder text) {
            if (value instanceof Map<?, ?> map) {
                char before = '{';
                for (Map.Entry<?, ?> entry : map.entrySet()) {
                    text.append(before);
                    write(entry.getKey().toString(), text);
                    text.append(':');
                    write(entry.getValue(), text);
                    before = ',';
                }
                text.append(map.isEmpty() ? "{}" : "}");
            } else if (value instanceof List<?> list) {
                char before = '[';
                for (Object item : list) {
                    text.append(before);
                    write(item, text);
                    before = ',';
                }
                text.append(list.isEmpty() ? "[]" : "]");
            } else if (value instanceof String string) {
                text.append('"');
                string.chars().forEach(c -> text.append(
                    c == '"' || c == '\\' ? "\\" + (char) c : c < ' ' ? String.format("\\u%04x", c) : "" + (char) c));
                text.append('"');
            } else {
                text.append(value);
            }
        }
    }

    // --------------------------------------------------------------- daemon

    /** What a daemon may do wrong with a game, so that a client can be tested. */
    enum Fault {
        NONE,
        /** The whole daemon ends at once. */
        CRASH,
        /** This game never ends. */
        HANG,
        /** Nothing is answered any more, to anybody. */
        FREEZE,
        /** Bytes that are not UTF-8 instead of the result. */
        GARBAGE,
        /** A line that does not end instead of the result. */
        ENDLESS,
        /** The connection is closed inside the line of the result. */
        MIDLINE,
        /** The connection is closed instead of a result. */
        CLOSE,
        /** The result of another game: another id, or players that there are not. */
        LIE,
        /** The result comes twice. */
        TWICE
    }

    /**
     * How games go beside their rules: CPU and waiting time of each, what it takes from the heap, what goes wrong, and
     * which seat plays at random.
     */
    record Trial(long computeMs, long waitMs, long allocateMb, Fault fault, int randomSeat) {

        static final Trial NONE = new Trial(0, 0, 0, Fault.NONE, 0);
        private static final int PIECE_BYTES = 64;
        private static final int PIECES_OF_A_MB = (1 << 20) / PIECE_BYTES;

        /** Use up the time that each game is to take. */
        void spend(Clock clock) throws GameStopped {
            ThreadMXBean threads = ManagementFactory.getThreadMXBean();
            long cpuBegin = threads.getCurrentThreadCpuTime();
            while (computeMs > 0 && threads.getCurrentThreadCpuTime() - cpuBegin < computeMs * 1_000_000) {
                clock.check();
            }
            for (long left = waitMs; left > 0; left -= 100) {
                sleep(Math.min(left, 100));
                clock.check();
            }
            List<Object> held = new ArrayList<>();
            for (long left = allocateMb; left > 0; left--) {
                fill(held, 1, 4); // as copies of a game are that an AI looks into: most are soon thrown away
                clock.check();
            }
        }

        /** Allocate so many megabytes in small pieces, and hold one of every `oneOf` of them. */
        static void fill(List<Object> held, long megabytes, int oneOf) {
            for (long i = 0; i < megabytes * PIECES_OF_A_MB; i++) {
                long[] piece = new long[PIECE_BYTES / 8 - 2];
                if (i % oneOf == 0) {
                    held.add(piece);
                }
            }
        }

        /** Change by `key=value`. Raises IllegalArgumentException. */
        Trial with(String word) {
            String[] pair = word.split("=", 2);
            String value = pair.length == 2 ? pair[1] : "";
            return switch (pair[0]) {
                case "compute" -> new Trial(Long.parseLong(value), waitMs, allocateMb, fault, randomSeat);
                case "wait" -> new Trial(computeMs, Long.parseLong(value), allocateMb, fault, randomSeat);
                case "allocate" -> new Trial(computeMs, waitMs, Long.parseLong(value), fault, randomSeat);
                case "fault" -> new Trial(computeMs, waitMs, allocateMb,
                    Fault.valueOf(value.toUpperCase(Locale.ROOT)), randomSeat);
                case "random" -> new Trial(computeMs, waitMs, allocateMb, fault, Integer.parseInt(value));
                default -> throw new IllegalArgumentException(word);
            };
        }
    }

    /** What NEWGAME asks for. */
    record Order(String[] decks, char mode, boolean quiet, int seconds, Long seed, Trial trial) {

        static final String USAGE =
            "Usage: NEWGAME deck1.dck deck2.dck [-i] [-o] [-q] [-c timeout] [-t ai_timeout] [-s seed]";

        /** Read a command. Raises IllegalArgumentException. */
        static Order parse(String command, Trial trial) {
            String[] words = command.split("\\s+");
            if (words.length < 3 || !words[0].equals("NEWGAME")) {
                throw new IllegalArgumentException(command);
            }
            char mode = 'q';
            boolean quiet = false;
            int seconds = 120;
            Long seed = null;
            for (int i = 3; i < words.length; i++) {
                boolean hasValue = i + 1 < words.length;
                switch (words[i]) {
                    case "-i", "-o" -> mode = words[i].charAt(1);
                    case "-q" -> quiet = true;
                    case "-c" -> seconds = Integer.parseInt(hasValue ? words[++i] : "");
                    case "-t" -> Integer.parseInt(hasValue ? words[++i] : ""); // our AI thinks for microseconds
                    case "-s" -> seed = Long.parseLong(hasValue ? words[++i] : "");
                    case "-x" -> trial = trial.with(hasValue ? words[++i] : "");
                    default -> throw new IllegalArgumentException(words[i]);
                }
            }
            return new Order(new String[] {words[1], words[2]}, mode, quiet, seconds, seed, trial);
        }

        String playerPrefix() {
            return mode == 'i' ? "Agent" : mode == 'o' ? "AiObs" : "Ai";
        }
    }

    /** A connection: lines in, read by one thread, and lines out, written by any. */
    static final class Link {
        static final int LONGEST_LINE = 1 << 16;

        private final Socket socket;
        private final InputStream in;
        private final OutputStream out;
        private volatile boolean closed;

        Link(Socket socket) throws IOException {
            this.socket = socket;
            socket.setTcpNoDelay(true);
            in = new BufferedInputStream(socket.getInputStream());
            out = new BufferedOutputStream(socket.getOutputStream(), 1 << 16);
        }

        /** The next line, or null at the end; a line that is too long ends the connection as well. */
        String read() {
            ByteArrayOutputStream line = new ByteArrayOutputStream();
            try {
                for (int next = in.read(); next >= 0 && line.size() < LONGEST_LINE; next = in.read()) {
                    if (next == '\n') {
                        return line.toString(StandardCharsets.UTF_8).strip();
                    }
                    line.write(next);
                }
            } catch (IOException gone) {
                // the same as its end
            }
            return null;
        }

        void write(String line) {
            write((line + "\n").getBytes(StandardCharsets.UTF_8));
        }

        synchronized void write(byte[] bytes) {
            try {
                out.write(bytes);
                out.flush();
            } catch (IOException gone) {
                close();
            }
        }

        boolean isClosed() {
            return closed;
        }

        void close() {
            closed = true;
            try {
                socket.close();
            } catch (IOException ignored) {
                // closed is closed
            }
        }
    }

    /**
     * What one command says and hears over a link. `tag` stands before each of its lines: "@7 ", or "" without ids.
     * What has to be done when the command is over is done by `end`: `before` its last line is sent, or `after`.
     */
    static final class Channel {
        private static final int MOST_REPLIES = 16;
        private static final int TICK_MS = 200;

        final Link link;
        final String tag;
        private final Daemon daemon;
        private final Runnable before;
        private final Runnable after;
        private final BlockingQueue<String> replies = new ArrayBlockingQueue<>(MOST_REPLIES);

        Channel(Daemon daemon, Link link, String tag, Runnable before, Runnable after) {
            this.daemon = daemon;
            this.link = link;
            this.tag = tag;
            this.before = before;
            this.after = after;
        }

        void line(String line) {
            daemon.waitWhileFrozen();
            link.write(tag + line);
        }

        /** Send the last line of all. */
        void end(String line) {
            before.run();
            line(line);
            after.run();
        }

        /** Give a game a reply that came; a client that sends many before they are asked for is cut off. */
        void offer(String reply) {
            if (!replies.offer(reply)) {
                link.close();
            }
        }

        String reply(Clock clock) throws GameStopped {
            try {
                while (true) {
                    String reply = replies.poll(TICK_MS, TimeUnit.MILLISECONDS);
                    if (reply != null) {
                        return reply;
                    }
                    clock.check();
                }
            } catch (InterruptedException stopped) {
                throw new GameStopped(false);
            }
        }
    }

    static final class Daemon {
        static final String GREETING = "HELLO tamen/1";
        static final int MOST_CONNECTIONS = 256;
        static final int WAITING = 256;
        static final int STOP_SECONDS = 30;

        private final int threads;
        private final Path decks;
        private final Trial trial;
        private final int every;
        private final ExecutorService games;
        private final ExecutorService readers;
        private final AtomicInteger active = new AtomicInteger();
        private final AtomicInteger played = new AtomicInteger();
        private final AtomicLong started = new AtomicLong();
        private volatile boolean running = true;
        private volatile boolean frozen;

        /** @param every of so many games, one goes wrong as `trial` says */
        Daemon(int threads, Path decks, Trial trial, int every) {
            this.threads = threads;
            this.decks = decks;
            this.trial = trial;
            this.every = every;
            games = Executors.newFixedThreadPool(threads, named("game"));
            readers = new ThreadPoolExecutor(0, MOST_CONNECTIONS, 30, TimeUnit.SECONDS, new SynchronousQueue<>(),
                named("reader"));
        }

        private static ThreadFactory named(String name) {
            return task -> {
                Thread thread = new Thread(task, name);
                thread.setDaemon(true);
                return thread;
            };
        }

        /** Listen on `port`, or on a free one for 0, until SHUTDOWN. */
        void serve(int port) throws IOException {
            try (ServerSocket server = new ServerSocket(port, 128, InetAddress.getLoopbackAddress())) {
                System.out.println("Daemon listening on port " + server.getLocalPort());
                System.out.println("Max concurrent games: " + threads);
                while (running) {
                    accept(server.accept());
                }
            }
            games.shutdown();
            try {
                games.awaitTermination(STOP_SECONDS, TimeUnit.SECONDS);
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
            System.out.println("Daemon stopped. Total games: " + played.get());
        }

        private void accept(Socket socket) {
            try {
                Link link = new Link(socket);
                try {
                    readers.execute(() -> serve(link));
                } catch (RejectedExecutionException full) {
                    link.write("ERROR: Too many connections");
                    link.close();
                }
            } catch (IOException gone) {
                System.err.println("Client error: " + gone.getMessage());
            }
        }

        private void serve(Link link) {
            try {
                String line = link.read();
                if (GREETING.equals(line)) {
                    serveTagged(link);
                } else if (line != null) {
                    Channel channel = new Channel(this, link, "", () -> { }, link::close);
                    run(line, channel);
                    for (line = link.read(); line != null; line = link.read()) {
                        channel.offer(line);
                    }
                }
            } finally {
                link.close();
            }
        }

        /**
         * A connection that stays open: each line is "@id line", with a new id for each command, greater than those
         * before. A line with the id of a game that is played is a reply to it; with that of one that is over, a reply
         * that came too late.
         */
        private void serveTagged(Link link) {
            link.write(GREETING + " games=" + threads + " waiting=" + WAITING);
            Map<Integer, Channel> inFlight = new ConcurrentHashMap<>();
            int lastId = 0;
            for (String line = link.read(); line != null; line = link.read()) {
                int space = line.indexOf(' ');
                int id = line.startsWith("@") && space > 0 ? wholeOr(line.substring(1, space), 0) : 0;
                if (id < 1) {
                    link.write("ERROR: Each line begins with the id of its command, as in: @1 STATUS");
                    return;
                }
                String rest = line.substring(space + 1);
                Channel channel = inFlight.get(id);
                if (channel != null) {
                    channel.offer(rest);
                } else if (id > lastId) {
                    lastId = id;
                    channel = new Channel(this, link, "@" + id + " ", () -> inFlight.remove(id), () -> { });
                    if (inFlight.size() >= WAITING) {
                        channel.end("ERROR: Too many commands");
                    } else {
                        inFlight.put(id, channel);
                        run(rest, channel);
                    }
                }
            }
        }

        /** Begin a command. */
        private void run(String command, Channel channel) {
            try {
                if (command.startsWith("NEWGAME")) {
                    Order order = Order.parse(command, trial);
                    games.execute(() -> play(order, channel));
                } else if (command.startsWith("BENCH ")) {
                    String[] words = command.split("\\s+");
                    Trial each = Trial.NONE;
                    for (int i = 2; i < words.length; i++) {
                        each = words[i].equals("-x") ? each : each.with(words[i]);
                    }
                    int count = Integer.parseInt(words[1]);
                    Trial told = each;
                    readers.execute(() -> channel.end("BENCH_RESULT: " + bench(count, told)));
                } else {
                    answer(command, channel);
                }
            } catch (IllegalArgumentException bad) {
                channel.end("ERROR: " + Order.USAGE);
            } catch (RejectedExecutionException full) {
                channel.end("ERROR: Too much to do, or shutting down");
            }
        }

        private void answer(String command, Channel channel) {
            switch (command) {
                case "STATUS" -> {
                    Runtime runtime = Runtime.getRuntime();
                    long used = (runtime.totalMemory() - runtime.freeMemory()) >> 20;
                    channel.line("TAMEN CARDS DAEMON STATUS");
                    channel.line("  Active games: " + active.get());
                    channel.line("  Total games played: " + played.get());
                    channel.line("  Memory: " + used + "MB / " + (runtime.maxMemory() >> 20) + "MB");
                    channel.end("  Max concurrent: " + threads);
                }
                case "SHUTDOWN" -> {
                    running = false; // seen when the next connection comes
                    channel.end("Shutting down daemon...");
                }
                default -> channel.end("ERROR: Unknown command. Use NEWGAME, STATUS, or SHUTDOWN");
            }
        }

        /** Play a game and tell all of it. */
        private void play(Order order, Channel channel) {
            Fault fault = started.incrementAndGet() % every == 0 ? order.trial().fault() : Fault.NONE;
            active.incrementAndGet();
            String last;
            try {
                last = playOut(order, channel, fault);
            } finally {
                active.decrementAndGet();
                played.incrementAndGet();
            }
            switch (fault) {
                case GARBAGE -> channel.link.write(new byte[] {'G', (byte) 0xff, (byte) 0xfe, '\n'});
                case ENDLESS -> channel.link.write("x".repeat(2 * Link.LONGEST_LINE).getBytes());
                case MIDLINE -> {
                    channel.link.write((channel.tag + last.substring(0, 9)).getBytes());
                    channel.link.close();
                }
                case CLOSE -> channel.link.close();
                case LIE -> {
                    String others = order.mode() == 'i' ? "Ai" : "Agent";
                    String tag = channel.tag.isEmpty() ? "" : "@999999999 ";
                    channel.link.write(tag + "GAME_RESULT: " + others + "(1)-Nobody won in 1ms");
                }
                case TWICE -> {
                    channel.line(last);
                    channel.end(last);
                }
                default -> channel.end(last);
            }
        }

        /** Play a game, and return the last line. */
        private String playOut(Order order, Channel channel, Fault fault) {
            Deck[] found = new Deck[2];
            for (int i = 0; i < 2; i++) {
                found[i] = Deck.find(order.decks()[i], decks);
                if (found[i] == null) {
                    return "ERROR: Could not load deck: " + order.decks()[i];
                }
            }
            long seed = order.seed() != null ? order.seed() : ThreadLocalRandom.current().nextLong();
            if (!order.quiet()) {
                channel.line("SEED: " + seed);
                channel.line("GAME_START: " + found[0].name() + " vs " + found[1].name());
            }
            goWrong(fault, channel.link);
            Seat[] seats = new Seat[2];
            for (int i = 0; i < 2; i++) {
                String name = order.playerPrefix() + "(" + (i + 1) + ")-" + found[i].name();
                seats[i] = new Seat(name, mind(order, i + 1, seed, channel));
            }
            long begin = System.nanoTime(), limit = TimeUnit.SECONDS.toNanos(order.seconds());
            Clock clock = () -> {
                if (channel.link.isClosed() || System.nanoTime() - begin > limit) {
                    throw new GameStopped(!channel.link.isClosed());
                }
            };
            Game game = new Game(seats, found, seed, clock);
            try {
                order.trial().spend(clock);
                game.play();
            } catch (GameStopped stopped) {
                if (stopped.timedOut) {
                    channel.line("GAME_TIMEOUT: Game exceeded " + order.seconds() + " seconds");
                }
            } catch (RuntimeException error) {
                channel.line("GAME_ERROR: " + error);
            }
            String who = game.winner == null ? "Draw" : game.winner.name + " won";
            return "GAME_RESULT: " + who + " in " + TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - begin) + "ms";
        }

        private static Mind mind(Order order, int seat, long seed, Channel channel) {
            if (order.mode() == 'i') {
                return new RemoteMind(channel);
            }
            Mind mind = order.trial().randomSeat() == seat ? new RandomMind(seed + seat) : new AiMind();
            return order.mode() == 'o' ? new ObservedMind(mind, channel) : mind;
        }

        private void goWrong(Fault fault, Link link) {
            if (fault == Fault.CRASH) {
                Runtime.getRuntime().halt(3);
            }
            frozen |= fault == Fault.FREEZE;
            waitWhileFrozen();
            while (fault == Fault.HANG && !link.isClosed()) {
                sleep(50);
            }
        }

        void waitWhileFrozen() {
            while (frozen) {
                sleep(1000);
            }
        }

        /** Play games in this JVM without a socket, as many at once as the daemon would: its own capacity. */
        String bench(int count, Trial each) {
            CountDownLatch left = new CountDownLatch(count);
            long begin = System.nanoTime();
            for (int i = 0; i < count; i++) {
                long seed = i;
                games.execute(() -> {
                    try {
                        Deck[] both = {Deck.STORED.get("aggro"), Deck.STORED.get("control")};
                        Seat[] seats = {new Seat("Ai(1)-Aggro", new AiMind()), new Seat("Ai(2)-Control", new AiMind())};
                        each.spend(() -> { });
                        new Game(seats, both, seed, () -> { }).play();
                    } catch (GameStopped impossible) {
                        throw new IllegalStateException(impossible);
                    } finally {
                        left.countDown();
                    }
                });
            }
            try {
                left.await();
            } catch (InterruptedException stopped) {
                Thread.currentThread().interrupt();
            }
            double seconds = (System.nanoTime() - begin) / 1e9;
            Map<String, Object> result = new LinkedHashMap<>();
            result.put("games", count);
            result.put("threads", threads);
            result.put("compute_ms", each.computeMs());
            result.put("wait_ms", each.waitMs());
            result.put("allocate_mb", each.allocateMb());
            result.put("seconds", seconds);
            result.put("games_per_s", count / seconds);
            return Json.of(result);
        }
    }

    static void sleep(long milliseconds) {
        try {
            Thread.sleep(milliseconds);
        } catch (InterruptedException stopped) {
            Thread.currentThread().interrupt();
        }
    }

    static int wholeOr(String text, int other) {
        try {
            return Integer.parseInt(text.strip());
        } catch (NumberFormatException none) {
            return other;
        }
    }

    // ----------------------------------------------------------------- main

    /** What stays in the heap for as long as the daemon runs, as the cards of a large game do. */
    private static final List<Object> LIVE = new ArrayList<>();

    private static final List<String> FLAGS = List.of("-p", "--threads", "--decks", "--start-ms", "--compute-ms",
        "--wait-ms", "--allocate-mb", "--live-mb", "--fault", "--every", "--games");

    public static void main(String[] args) throws IOException {
        Map<String, String> flags = new HashMap<>();
        String verb = args.length > 0 ? args[0] : "";
        boolean good = List.of("daemon", "bench").contains(verb) && args.length % 2 == 1;
        for (int i = 1; i + 1 < args.length; i += 2) {
            good &= FLAGS.contains(args[i]);
            flags.put(args[i], args[i + 1]);
        }
        try {
            if (good) {
                start(verb, flags);
                return;
            }
        } catch (IllegalArgumentException bad) {
            System.err.println("Bad value: " + bad.getMessage());
        }
        System.err.println("Usage: daemon -p port [flags] | bench --games n [flags]");
        System.err.println("Flags, each with a value: " + String.join(" ", FLAGS));
        System.exit(2);
    }

    private static void start(String verb, Map<String, String> flags) throws IOException {
        Trial trial = Trial.NONE
            .with("compute=" + flags.getOrDefault("--compute-ms", "0"))
            .with("wait=" + flags.getOrDefault("--wait-ms", "0"))
            .with("allocate=" + flags.getOrDefault("--allocate-mb", "0"))
            .with("fault=" + flags.getOrDefault("--fault", "none"));
        int threads = Integer.parseInt(flags.getOrDefault("--threads", "10"));
        int every = Math.max(1, Integer.parseInt(flags.getOrDefault("--every", "1")));
        Trial.fill(LIVE, Long.parseLong(flags.getOrDefault("--live-mb", "0")), 1);
        Daemon daemon = new Daemon(threads, Path.of(flags.getOrDefault("--decks", ".")), trial, every);
        if (verb.equals("bench")) {
            System.out.println(daemon.bench(Integer.parseInt(flags.getOrDefault("--games", "1000")), trial));
            System.exit(0);
        }
        sleep(Long.parseLong(flags.getOrDefault("--start-ms", "0"))); // as if cards had to be loaded
        daemon.serve(Integer.parseInt(flags.getOrDefault("-p", "17171")));
        System.exit(0);
    }
}
